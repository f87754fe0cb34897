"""benchmarks/gpu_rivals.py without a GPU: its contestants with few rows, and stand-ins for the times."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from benchmarks import gpu_probe, gpu_rivals
from benchmarks.harness.benchmark import CannotRun
from fastccsa import reference

ROWS, WIDTH = 10, 24


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def once(call: Callable[[], object], count: int = 1) -> float:
        call()
        return 1.0

    monkeypatch.setattr(gpu_probe, "DEVICE", "cpu")
    for name in ("gpu_ms", "wall_ms", "peak_mib"):
        monkeypatch.setattr(gpu_probe, name, once)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(gpu_rivals, "CHUNK", 4)  # the last chunk is shorter


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(gpu_rivals.main, ["--out", str(tmp_path / "out.jsonl")])
    assert result.exit_code == 1
    assert "sees no GPU" in result.output
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("make", [gpu_rivals.ours, lambda: gpu_rivals.dense, lambda: gpu_rivals.chunked])
def test_contestants_compute_the_same_loss(make: Callable[[], gpu_rivals.Loss]) -> None:
    a, b, y1, y2 = gpu_probe.make_sides((ROWS, ROWS), "uniform", torch.float32, WIDTH)
    exact = [side.double().requires_grad_() for side in (a, b)]
    expected = reference.contrastive_alignment(*exact, y1, y2, margin=gpu_probe.MARGIN, pairs="all")
    sides = a.requires_grad_(), b.requires_grad_()
    loss = make()(*sides, y1, y2)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    its = torch.autograd.grad(loss, sides)
    for gradient, of_exact in zip(its, torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(gradient.double(), of_exact, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("on_cpu")
def test_every_contestant_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def another(a: Tensor, b: Tensor, *rest: object, **options: object) -> Tensor:
        seen.append((a.dtype, options))
        return (a @ b.t()).sum()

    monkeypatch.setitem(sys.modules, "siglip_kernel", SimpleNamespace(fused_siglip_plus_loss=another))
    monkeypatch.setitem(sys.modules, "pykeops.torch", None)
    out = tmp_path / "out.jsonl"
    gpu_rivals.compare(gpu_probe.Report(out), ROWS, WIDTH)
    records = [json.loads(line) for line in out.read_text().splitlines()]
    failed = [record for record in records if "failed" in record]
    assert [record["name"] for record in failed] == [f"{ROWS}x{ROWS}x{WIDTH} bfloat16 KeOps, float32"]
    assert "pip install pykeops" in failed[0]["failed"]
    timed = {record["name"].partition(f"x{WIDTH} ")[2] for record in records if "wall_ms" in record}
    assert timed == {
        "bfloat16 fastccsa", "bfloat16 torch.compile", "bfloat16 torch.compile, CUDA graphs", "bfloat16 eager",
        "bfloat16 eager, 4 rows at a time", "bfloat16 siglip-kernel, another loss", "float32 fastccsa, ieee",
        "float32 fastccsa, bf16x3", "float32 fastccsa, tf32", "float32 torch.compile, TF32",
        "float32 torch.compile, TF32, CUDA graphs", "float32 eager, TF32, 4 rows at a time",
    }  # fmt: skip
    assert set(seen[0][1]) == {"num_groups"}
    assert torch.get_float32_matmul_precision() == "highest"


def test_dense_contestants_end_where_their_matrices_do() -> None:
    names = {name for name, _ in gpu_rivals.of_bfloat16(65536)}
    assert names == {"fastccsa", "eager, 4096 rows at a time", "siglip-kernel, another loss"}


@pytest.mark.parametrize(
    ("module", "make"), [("siglip_kernel", gpu_rivals.siglip_plus), ("pykeops.torch", gpu_rivals.keops)]
)
def test_a_library_that_is_missing_is_named(module: str, make: Callable[[], object], monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CannotRun, match="not installed: pip install"):
        make()
