"""The benchmark of decoders, at a tiny size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.bench_decode import Benchmark
from benchmarks.harness.benchmark import CannotRun
from benchmarks.images.decoders import DECODERS
from benchmarks.images.files import render


@pytest.mark.usefixtures("one_thread")
def test_every_decoder_runs_or_says_why_not(options) -> None:
    benchmark = Benchmark(options("decode", shape=("96x64",), files=3, rounds=2))
    (cell,) = benchmark.cells()
    rows = {row.contestant: row for row in benchmark.measure(cell, benchmark.names())}
    assert list(rows) == list(DECODERS)
    for name in ("fastccsa", "Pillow", "torchvision", "codes read"):
        assert rows[name].not_measured is None
        assert len(rows[name].seconds) == 2
    for name in ("libjpeg-turbo in C", "simplejpeg"):
        assert rows[name].seconds or "install" in (rows[name].not_measured or "install")
    assert {row.kind for row in rows.values()} == {"fastccsa", "rival", "floor"}


@pytest.mark.parametrize(("scale", "off"), [(1, 0.0), (2, 4.0)])
def test_all_decoders_make_the_same_region(tmp_path, scale: int, off: float) -> None:
    """At full size the same pixels, inside the region; reduced, the means of pixels and libjpeg's differ a little."""
    (path,) = render(tmp_path, "96x64", 1)
    data = np.fromfile(path, np.uint8)
    with Image.open(path) as image:
        whole = np.asarray(image).astype(float).reshape(64 // scale, scale, 96 // scale, scale, 3).mean(axis=(1, 3))
    top, left, height, width = region = (7, 11, 20, 21)
    expected = whole[top : top + height, left : left + width]
    for name, (_, decode) in DECODERS.items():
        if name == "codes read" or (name == "torchvision" and scale > 1):
            continue
        try:
            made = np.asarray(decode(data, (64, 96), region, scale))
        except CannotRun:
            continue
        made = np.moveaxis(made, 0, -1) if name == "torchvision" else made
        assert made.shape == (height, width, 3), name
        assert np.abs(made - expected)[2:-2, 2:-2].mean() <= off, name
