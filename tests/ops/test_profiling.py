"""NVTX ranges are marked while they are switched on."""

from __future__ import annotations

import sys
from typing import Any

import nvtx
import pytest
import torch

import fastccsa


class Recorder:
    """Stands in for nvtx.annotate and records its calls in ``seen``."""

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


def test_without_nvtx_the_error_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)  # what Python does for a module that cannot be imported
    with pytest.raises(fastccsa.InputError, match=r"nvtx is not usable .*pip install 'fastccsa\[train\]'"):
        fastccsa.nvtx_ranges()
    assert fastccsa.nvtx_ranges(False) is False
    step()
