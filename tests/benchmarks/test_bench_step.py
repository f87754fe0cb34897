"""The benchmark of the training step, at a tiny size."""

from __future__ import annotations

import pytest

from benchmarks.bench_step import BARE, LOOP, PARTS, PLAIN, Benchmark


@pytest.mark.usefixtures("one_thread")
def test_all_three_and_the_parts_are_measured(draw_collections, options) -> None:
    manifest = draw_collections({"HAM": ("nv", "mel"), "SON": ("nv", "mel")}, 5)
    network = {"backbone": "shufflenet_v2_x0_5", "size": 32, "pairs": (4,), "device": "cpu", "workers": 1}
    benchmark = Benchmark(options("step", manifest=manifest, rounds=2, steps=1, **network))
    (cell,) = benchmark.cells()
    assert cell.title == "shufflenet_v2_x0_5, 4 pairs of 32 px, cache ram"
    rows = {row.contestant: row for row in benchmark.measure(cell, benchmark.names())}
    assert {name: row.kind for name, row in rows.items()} == {LOOP: "fastccsa", PLAIN: "rival", BARE: "floor"}
    assert all(len(row.seconds) == 2 for row in rows.values())
    extra = rows[LOOP].extra
    assert {part: len(seconds) for part, seconds in extra["parts"].items()} == dict.fromkeys(PARTS, 2)
    assert extra["config"]["batch_size"] == 4
    shares = [float(share.split()[-2]) for share in rows[LOOP].note.removeprefix("of a step: ").split(", ")]
    assert sum(shares) == pytest.approx(100, abs=0.3)


@pytest.mark.usefixtures("one_thread")
def test_the_parts_can_be_left_out(draw_collections, options) -> None:
    manifest = draw_collections({"HAM": ("nv", "mel"), "SON": ("nv", "mel")}, 5)
    network = {"backbone": "shufflenet_v2_x0_5", "size": 32, "pairs": (4,), "device": "cpu", "workers": 1}
    benchmark = Benchmark(options("step", manifest=manifest, rounds=1, steps=1, plain=False, parts=False, **network))
    rows = benchmark.measure(*benchmark.cells(), benchmark.names())
    assert [(row.contestant, len(row.seconds), row.extra) for row in rows] == [(LOOP, 1, {}), (BARE, 1, {})]


def test_plain_pytorch_can_be_left_out(options) -> None:
    assert Benchmark(options("step", plain=False)).names() == [LOOP, BARE]
