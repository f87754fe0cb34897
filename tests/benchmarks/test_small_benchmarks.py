"""The benchmarks of the sampler, the augmentation and the store measure every contestant, at tiny sizes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import bench_augment, bench_sampler, bench_store

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_sampler(options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_sampler, "SIZES", (640,))
    benchmark = bench_sampler.Benchmark(options("sampler"))
    batches, construction, epochs = (benchmark.measure(cell, benchmark.names()) for cell in benchmark.cells())
    for rows in (batches, construction):
        assert [(row.contestant, len(row.seconds)) for row in rows] == [("fastccsa", 3), ("naive", 3), ("randperm", 3)]
        assert [row.peak_bytes for row in rows[1:]] == [640 * 8] * 2  # their permutations
    assert [row.contestant for row in epochs] == ["fastccsa"]


@pytest.mark.parametrize("make", [bench_sampler.ours, bench_sampler.naive], ids=lambda make: make.__name__)
def test_pairs_of_both_samplers_follow_the_policy(make) -> None:
    """A quarter of the second images has the class of the first, and all are from other domains than the first."""
    labels, domains = bench_sampler.images(3200)
    batch, _ = make(labels, domains)
    first, second = (np.concatenate(side) for side in zip(*(batch(0, step) for step in range(20)), strict=True))
    assert (labels[first] == labels[second]).mean() == pytest.approx(0.25, abs=0.06)
    assert (domains[second] != 0).mean() > 0.95  # others are taken only if no candidate is left


@pytest.mark.parametrize("number", [0, 4])
def test_the_augmentation(options, number: int) -> None:
    benchmark = bench_augment.Benchmark(options("augment", device="cpu", batch=2, crops=3))
    assert len(benchmark.cells()) == 5
    rows = benchmark.measure(benchmark.cells()[number], benchmark.names())
    assert [(row.contestant, row.kind, len(row.seconds)) for row in rows] == [
        ("fastccsa", "fastccsa", 3), ("floor", "floor", 3),
    ]  # fmt: skip
    if number == 0:  # images written, and windows read
        assert 2 * 3 * 224**2 * 4 < rows[0].extra["bytes_moved"] < 2 * 3 * (224**2 * 4 + 300**2)


def test_the_store(draw_collections, options) -> None:
    manifest = draw_collections({"HAM": ("nv", "mel")}, 3)
    benchmark = bench_store.Benchmark(options("store", manifest=manifest, size=32))
    (cell,) = benchmark.cells()
    rows = benchmark.measure(cell, benchmark.names())
    assert [(row.contestant, len(row.seconds)) for row in rows] == [("dali", 3), ("torchvision", 3)]
    assert rows[0].extra["images"] == 14
    assert rows[0].extra["bytes"] == rows[1].extra["bytes"] > 0
