"""The image benchmark, at a tiny size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fastccsa.benchmarking.images.files import find, render
from fastccsa.benchmarking.results import Measurement, Results
from fastccsa.cli import main

TINY = ["--shape", "96x64", "--files", "3", "--batch", "2", "--rounds", "2", "--seconds", "0", "--threads", "1"]


def bench(*arguments: str) -> str:
    result = CliRunner().invoke(main, ["bench", "images", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_contestant_runs_or_says_why_not(tmp_path: Path) -> None:
    out = tmp_path / "images.json"
    text = bench(*TINY, "--out", str(out), "--machine", "tiny")
    results = Results.read(out)
    (cell,) = results.cells
    rows = {row.contestant: row for row in cell.measurements}
    assert rows["gpu"].not_measured or torch.cuda.is_available()
    assert rows["kornia"].not_measured
    del rows["gpu"], rows["kornia"]
    for name, row in rows.items():
        assert row.not_measured is None, name
        assert len(row.seconds) == len(row.cpu_seconds) == 2, name
        assert min(row.seconds) > 0, name
        assert f"\n  {name} " in text
    assert {row.kind for row in rows.values()} == {"fastccsa", "rival", "floor"}
    assert results.machine["name"] == "tiny"
    shown = CliRunner().invoke(main, ["bench", "show", str(out)])
    assert shown.exit_code == 0
    assert [line[:22] for line in shown.output.splitlines()] == [line[:22] for line in text.splitlines()]


def test_multiples_are_of_the_rivals(tmp_path: Path) -> None:
    from fastccsa.benchmarking.images.table import rates_table

    out = tmp_path / "images.json"
    bench(*TINY, "--contestant", "codes read", "--out", str(out))
    results = Results.read(out)
    rates = {"fused": 100.0, "DALI, literal": 20.0, "torchvision, PIL": 10.0, "torchvision, tensors": 12.5}
    results.cells[0].measurements = [
        Measurement(name, "rival", seconds=[1 / rate] * 3, cpu_seconds=[2 / rate] * 3) for name, rate in rates.items()
    ]
    lines = [line.split() for line in rates_table(results).splitlines()]
    assert next(line for line in lines if line[:1] == ["fused"]) == [
        "fused", "100.0", "100.0", "-", "100.0", "20.00", "5.0", "8.0",
    ]  # fmt: skip


def test_the_parity_table(tmp_path: Path) -> None:
    text = bench("--parity", "--shape", "320x240", "--files", "3", "--threads", "1")
    rows = {line[:34].strip(): line[34:].split() for line in text.splitlines() if line[:2] == "  " and line[2] != " "}
    values = {name: [float(cell) for cell in cells] for name, cells in rows.items() if len(cells) == 6}
    assert values["exact, torchvision"][:2] == [0, 0]
    assert values["exact, torchvision"][4:] == [0, 0]
    assert values["fused, torchvision"][2:4] == [0, 0]
    for name, (*_, mean, largest) in values.items():
        assert mean < 0.5, name
        # Evaluation is everyone's within a grey level; Pillow rounds twice, in a region elsewhere than in the whole.
        assert largest < (2.01 if name == "fused, torchvision" else 1.01), name
    assert values["fused"][2] < 0.6


def test_rendered_files_are_like_a_cameras(tmp_path: Path) -> None:
    files = render(tmp_path, "640x480", 3)
    assert len(files.paths) == 3
    assert Image.open(files.paths[0]).size == (640, 480)
    assert 0.1 < files.bits_per_pixel / 8 < 0.4
    assert len({path.read_bytes() for path in files.paths}) == 3


def test_ones_own_files_from_all_over_the_folder(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "images" / str(number % 2) / f"{number}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(path, "JPEG")
    (tmp_path / "images" / "readme.txt").write_text("")
    assert [path.name for path in find(tmp_path / "images", 3, tmp_path).paths] == ["0.JPG", "4.JPG", "3.JPG"]
    assert len(find(tmp_path / "images", 100, tmp_path).paths) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "large"], "give WIDTHxHEIGHT"),
        (["--contestant", "caffe"], "no contestant is called 'caffe'; there are fused"),
        (["--images", "{empty}"], "no .jpg or .jpeg file is in"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, arguments: list[str], message: str) -> None:
    arguments = [argument.format(empty=tmp_path) for argument in arguments]
    result = CliRunner().invoke(main, ["bench", "images", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
