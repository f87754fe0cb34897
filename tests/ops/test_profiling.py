"""NVTX ranges are marked while they are switched on."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import nvtx
import pytest
import torch

import fastccsa


class Recorder:
    """Stands in for nvtx.annotate; ``seen`` lists the calls."""

    seen: list[str]

    def __init__(self, message: str, domain: str) -> None:
        assert domain == "fastccsa"
        self.message = message

    def __enter__(self) -> None:
        self.seen.append(f"begin {self.message}")

    def __exit__(self, *_: Any) -> None:
        self.seen.append(f"end {self.message}")


def step(pairs: str = "zipped") -> None:
    logits = [torch.randn(4, 3, requires_grad=True) for _ in range(2)]
    features = [torch.randn(4, 5, requires_grad=True) for _ in range(2)]
    labels = torch.tensor([0, 1, 2, 0])
    fastccsa.WeightedCCSALoss(pairs=pairs)(*logits, *features, labels, labels.flip(0)).backward()


@pytest.mark.parametrize(("pairs", "op"), [("zipped", "zipped_ccsa"), ("all", "all_pairs")])
def test_forward_and_backward_are_marked_while_on(monkeypatch: pytest.MonkeyPatch, pairs: str, op: str) -> None:
    Recorder.seen = []
    monkeypatch.setattr(nvtx, "annotate", Recorder)
    step(pairs)
    assert Recorder.seen == []
    assert fastccsa.nvtx_ranges() is False
    try:
        step(pairs)
    finally:
        assert fastccsa.nvtx_ranges(False) is True
    step(pairs)
    assert [mark for mark in Recorder.seen if op in mark] == [
        f"begin {op} forward",
        f"end {op} forward",
        f"begin {op} backward",
        f"end {op} backward",
    ]


def test_with_the_real_nvtx() -> None:
    fastccsa.nvtx_ranges()
    try:
        step()
    finally:
        fastccsa.nvtx_ranges(False)


def test_without_nvtx_they_stay_off_and_the_error_has_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    with pytest.raises(fastccsa.InputError, match=r"^nvtx is not installed: pip install 'fastccsa\[train\]'$"):
        fastccsa.nvtx_ranges()
    assert fastccsa.nvtx_ranges(False) is False
    step()


def test_torch_profiler_shows_the_ranges_without_nvtx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    with torch.profiler.profile() as profile:
        step()
    assert {"zipped_ccsa forward", "zipped_ccsa backward"} <= {event.key for event in profile.key_averages()}


@pytest.mark.parametrize(("value", "on"), [("1", True), ("0", False), ("", False)])
def test_the_environment_switches_them_on_from_the_start(monkeypatch: pytest.MonkeyPatch, value: str, on: bool) -> None:
    monkeypatch.setenv("FASTCCSA_NVTX", value)
    code = "import fastccsa; print(fastccsa.nvtx_ranges(False))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert ended.stdout == f"{on}\n"
