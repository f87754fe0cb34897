"""The loss over all pairs, its rivals and its floor: see `benchmarks.losses.all_pairs`."""

from benchmarks.losses.all_pairs import Benchmark  # noqa: F401


def test_all_pairs(report):
    report()
