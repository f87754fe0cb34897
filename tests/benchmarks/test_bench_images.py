"""The image benchmark, at a tiny size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.bench_images import Benchmark
from benchmarks.images.contestants import CONTESTANTS
from benchmarks.images.files import find, render


@pytest.mark.usefixtures("one_thread")
def test_every_contestant_runs_or_says_why_not(options) -> None:
    benchmark = Benchmark(options("images", shape=("96x64",), files=3, batch=2, rounds=2))
    (cell,) = benchmark.cells()
    rows = {row.contestant: row for row in benchmark.measure(cell, benchmark.names())}
    assert list(rows) == list(CONTESTANTS)
    assert rows["gpu"].not_measured or torch.cuda.is_available()
    assert rows["kornia"].not_measured
    assert rows["torchvision, GPU"].not_measured == "needs a GPU"
    del rows["gpu"], rows["kornia"], rows["torchvision, GPU"]
    for name, row in rows.items():
        assert row.not_measured is None, name
        assert len(row.seconds) == len(row.cpu_seconds) == 2, name
        assert min(row.seconds) > 0, name
    assert {row.kind for row in rows.values()} == {"fastccsa", "rival", "floor"}


def test_full_is_three_shapes(options) -> None:
    assert [cell.title for cell in Benchmark(options("images")).cells()] == ["1024x768"]
    full = Benchmark(options("images", full=True))
    assert [cell.title for cell in full.cells()] == ["600x450", "1024x768", "3000x2000"]
    assert (full.options.rounds, full.options.seconds) == (5, 4.0)


def test_rendered_files_are_like_a_cameras(tmp_path: Path) -> None:
    paths = render(tmp_path, "640x480", 3)
    assert len(paths) == 3
    assert Image.open(paths[0]).size == (640, 480)
    assert 0.1 < paths[0].stat().st_size / (640 * 480) < 0.4
    assert len({path.read_bytes() for path in paths}) == 3


def test_own_files_are_taken_from_the_whole_folder(tmp_path: Path) -> None:
    for number in range(6):
        path = tmp_path / "images" / str(number % 2) / f"{number}.JPG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(path, "JPEG")
    (tmp_path / "images" / "readme.txt").write_text("")
    assert [path.name for path in find(tmp_path / "images", 3)] == ["0.JPG", "4.JPG", "3.JPG"]
    assert len(find(tmp_path / "images", 100)) == 6
