"""From JPEG files to finished batches: times are per image, and a turn is some seconds of one contestant."""

from __future__ import annotations

import itertools
import math
import resource
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from types import SimpleNamespace

import click

from benchmarks.harness import benchmark
from benchmarks.harness.benchmark import CannotRun
from benchmarks.harness.results import Row
from benchmarks.images.contestants import CONTESTANTS, Job, Stream
from benchmarks.images.files import SHAPES, Collection, Files, collections
from fastccsa.images import Transforms
from fastccsa.system.machine import usable_cpus

FULL = {"rounds": 5, "seconds": 4.0}


class Benchmark(benchmark.Benchmark):
    """Measures streams of batches."""

    def __init__(self, options: SimpleNamespace) -> None:
        options = SimpleNamespace(**vars(options) | {"threads": options.threads or usable_cpus()})
        super().__init__(SimpleNamespace(**vars(options) | (FULL if options.full else {})))

    def cells(self) -> list[Collection]:
        return collections(self.options, SHAPES if self.options.full else SHAPES[1:2])

    def names(self) -> list[str]:
        for name in self.options.contestant:
            if name not in CONTESTANTS:
                known = f"no contestant is called {name!r}; there are {', '.join(CONTESTANTS)}"
                raise click.BadParameter(known, param_hint="--contestant")
        return [name for name in CONTESTANTS if name in (self.options.contestant or CONTESTANTS)]

    def measure(self, cell: Collection, names: Sequence[str]) -> list[Row]:
        with cell.open() as files:
            rows = [Row(name, CONTESTANTS[name].kind, calls=self.options.batch) for name in names]
            self.race([(row, self._turn(row, files)) for row in rows], seconds=math.inf)
        return rows

    def _turn(self, row: Row, files: Files) -> Callable[[], float | None]:
        one = CONTESTANTS[row.contestant]

        def turn() -> float | None:
            if row.not_measured is not None:
                return None
            try:
                transforms = Transforms(self.options.size)
                job = Job(files, self.options.batch, self.options.threads, self.device, transforms)
                stream = one.start(job)
                wall, cpu = self._time(stream, one.warm_up)
            except CannotRun as reason:
                row.not_measured = str(reason)
                return None
            row.cpu_seconds.append(cpu)
            return wall

        return turn

    def _time(self, stream: Stream, warm_up: int) -> tuple[float, float]:
        """Measure wall and CPU seconds per image after the warm-up, over at least two batches."""
        with closing(stream):  # type: ignore[type-var]
            for _ in itertools.islice(stream, warm_up):
                pass
            self.synchronize()
            cpu, begun, images = _cpu_seconds(), time.perf_counter(), 0
            for number, batch in enumerate(stream, 1):
                images += len(batch)
                if number >= 2 and time.perf_counter() - begun > self.options.seconds:
                    break
            self.synchronize()
            wall = time.perf_counter() - begun
            here = _cpu_seconds()[0] - cpu[0]
        # The CPU time of worker processes is known only after they end, and includes their work during the warm-up.
        ended = _cpu_seconds()[1] - cpu[1]
        return wall / images, here / images + ended / (images + warm_up * len(batch))


def _cpu_seconds() -> tuple[float, float]:
    """Return the CPU time of this process, and of the child processes that it has waited for."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, ended.ru_utime + ended.ru_stime


def test_images(report):
    report()
