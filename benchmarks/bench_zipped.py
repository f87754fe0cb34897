"""The zipped loss, its rivals and its floors: see `benchmarks.losses.zipped`."""

from benchmarks.losses.zipped import Benchmark  # noqa: F401


def test_zipped(report):
    report()
