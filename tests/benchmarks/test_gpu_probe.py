"""benchmarks/gpu_probe.py without a GPU: its arguments, and its parts with small sizes and stand-ins for the times."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_probe


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the parts run on the CPU: few rows, and every call is made once instead of being timed."""

    def once(call: Callable[[], object], count: int = 1) -> float:
        call()
        return 1.0

    values = {
        "DEVICE": "cpu", "SQUARES": [8, 1024], "AGAINST_A_MEMORY": [4], "MEMORY": 32, "FUSED": ("products",),
        "FLOAT32_SIZES": [(8, 8, 3), (4, 32, 1)], "ERROR_ROWS": 64, "UNSORTED_MMA": (), "STREAMED": (),
        "ERROR_WIDTHS": (20,), "ERROR_SHAPES": ((30, 40),), "ZIPPED_ROWS": [8, 8192],
        "WIDTHS_OF_16_BITS": (40,), "WIDTHS_OF_FLOAT32": (48,), "WIDE_ROWS": (6,), "WIDE": ("products",),
        "VENDOR_ROWS": 64,
    }  # fmt: skip
    for name in ("gpu_ms", "wall_ms", "events_ms", "peak_mib"):
        values[name] = once
    for name, value in values.items():
        monkeypatch.setattr(gpu_probe, name, value)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(gpu_probe.main, arguments)
    return result.exit_code, result.output


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("arguments", [(), ("all-pairs", "zipped"), ("--fits",)])
def test_without_a_gpu_it_says_so(arguments: tuple[str, ...], tmp_path: Path) -> None:
    out = tmp_path / "probe.jsonl"
    status, output = run(*arguments, "--out", str(out))
    assert status == 1
    assert "sees no GPU" in output
    assert not out.exists()


def test_a_part_it_does_not_know() -> None:
    status, output = run("triplets")
    assert status == 2
    assert "'triplets'" in output


def test_help_lists_the_parts() -> None:
    status, output = run("--help")
    assert status == 0
    for part in gpu_probe.PARTS:
        assert part in output.replace("\n", "").replace(" ", "")


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (
            "all-pairs",
            {"8x8 uniform products", "8x8 uniform direct", "1024x1024 table1 products", "4x32 uniform direct"},
        ),
        ("float32", {"error, ieee stored", "error, differences in float32", "8x8 tf32 products", "4x32 bf16x3 stored"}),
        ("errors", {"bfloat16 products", "float16 products"}),
        ("wide", {"6x6x40 bfloat16 products", "6x6x48 bf16x3 products"}),
        ("zipped", {"8 bfloat16", "8 float32, copy", "8192 float32", "8192 bfloat16, two passes"}),
    ],
)
def test_every_figure_is_a_record(part: str, expected: set[str], tmp_path: Path, capsys) -> None:
    out = tmp_path / "probe.jsonl"
    gpu_probe.PARTS[part](gpu_probe.Report(out))
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert expected <= {record["name"] for record in records}
    assert all(record["part"] == part and "failed" not in record for record in records), records
    assert len(capsys.readouterr().out.splitlines()) == len(records)
    for record in records:
        if "gradient" in record:
            assert record["gradient"] < 1e-6
            assert record["loss"] < 1e-6


def test_a_failure_is_a_record_and_does_not_end_the_run(tmp_path: Path) -> None:
    out = tmp_path / "probe.jsonl"
    report = gpu_probe.Report(out)
    with report.attempt("zipped", "8 float32"):
        raise RuntimeError("out of memory")
    assert json.loads(out.read_text())["failed"] == "RuntimeError: out of memory"


def test_labels_have_the_frequencies_of_the_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_probe, "DEVICE", "cpu")
    mix = gpu_probe.MIXES["table1"]
    counts = torch.bincount(gpu_probe.make_labels(4096, mix), minlength=len(mix)).tolist()
    assert sum(counts) == 4096
    for count, share in zip(counts, mix, strict=True):
        assert abs(count - 4096 * share / sum(mix)) < len(mix)


@pytest.mark.cuda
def test_the_library_runs_on_this_gpu() -> None:
    status, output = run("--fits")
    assert status == 0, output
