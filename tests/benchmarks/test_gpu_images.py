"""benchmarks/gpu_images.py without a GPU: its arguments, and its parts on the CPU with few small files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu_images
from benchmarks.gpu_probe import Report


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {
        "DEVICE": "cpu", "SHAPES": ("64x48",), "STORED": {"64x48": 9}, "STREAMED": 4, "BATCH": 2, "SECONDS": 0.0,
        "SIZES": (16,), "KINDS": {"4:2:0": 2, "grey": None},
    }  # fmt: skip
    for name, value in small.items():
        monkeypatch.setattr(gpu_images, name, value)
    gpu_images.files_of.cache_clear()
    gpu_images.folder.cache_clear()


def records_of(part: str, out: Path, seconds: float = 1000) -> list[dict]:
    gpu_images.PARTS[part](Report(out), gpu_images.Budget(seconds))
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.usefixtures("on_cpu", "one_thread")
def test_streams_and_stores_are_measured(tmp_path: Path) -> None:
    streams = {record["name"]: record for record in records_of("streams", tmp_path / "streams.jsonl")}
    assert list(streams) == [f"64x48 to 16 px, {name}" for name in gpu_images.STREAMS]
    for name, record in streams.items():
        if "torchvision's GPU" in name or "from a store" in name:
            assert "needs a GPU" in record["not_measured"]
        else:
            assert record["images"] == 4, record
            assert record["per_second"] > 0
    stores = records_of("stores", tmp_path / "stores.jsonl")
    assert [store["name"] for store in stores] == ["64x48 to 16 px, GPU, first", "64x48 to 16 px, GPU, again"]
    assert [(store["images"], store["broken"]) for store in stores] == [(1, 0)] * 2  # an eighth, on a CPU


@pytest.mark.usefixtures("on_cpu")
def test_pixels_are_compared(tmp_path: Path) -> None:
    records = records_of("pixels", tmp_path / "pixels.jsonl")
    assert len(records) == 10
    assert {record["most"] for record in records} == {0}  # here both are the CPU's


@pytest.mark.usefixtures("on_cpu")
@pytest.mark.parametrize("part", ["streams", "stores", "decoders", "pixels"])
def test_nothing_begins_too_late(part: str, tmp_path: Path) -> None:
    records = records_of(part, tmp_path / "late.jsonl", seconds=0)
    assert records
    assert {record["skipped"] for record in records} == {"no time left"}


def test_a_failure_does_not_end_the_run(tmp_path: Path, capsys) -> None:
    out = tmp_path / "out.jsonl"
    with gpu_images.Budget(1000).attempt(Report(out), "stores", "64x48"):
        raise RuntimeError("no JPEG engine")
    assert json.loads(out.read_text())["failed"] == "RuntimeError: no JPEG engine"
    assert "Traceback" in capsys.readouterr().err


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(gpu_images.main, ["engine"])
    assert result.exit_code == 1
    assert "sees no GPU" in result.output
