"""The store of a manifest's crops: the time to make it, per image, and its size; on a GPU, made by DALI there too."""

from __future__ import annotations

import math
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from benchmarks.harness import benchmark
from benchmarks.harness.results import OURS, Row
from fastccsa.collections import Manifest
from fastccsa.images import Transforms
from fastccsa.images.source import ImageSource
from fastccsa.images.store import open_store


@dataclass(frozen=True)
class Cell:
    """A manifest, and the side length of the finished images."""

    manifest: str
    size: int

    @property
    def title(self) -> str:
        return f"{Path(self.manifest).name}, {self.size} px"


class Benchmark(benchmark.Benchmark):
    """Measures a build in a fresh folder, per image."""

    def cells(self) -> list[Cell]:
        o = self.options
        return [] if o.manifest is None else [Cell(str(o.manifest), o.size)]

    def names(self) -> Sequence[str]:
        return (*(["dali, GPU"] if self.device.type == "cuda" else []), "dali", "torchvision")

    def measure(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        manifest = Manifest.read(cell.manifest)
        source = ImageSource(manifest.paths, manifest.labels, manifest.domain_indices)
        rows = [Row(name, OURS) for name in names]

        def build(row: Row) -> float:
            with tempfile.TemporaryDirectory() as folder:
                maker, _, on_gpu = row.contestant.partition(", ")
                device = self.device if on_gpu else torch.device("cpu")
                begun, busy = perf_counter(), _cpu_seconds()
                open_store(source, Transforms(cell.size), Path(folder), maker, device=device).array.close()
                seconds = perf_counter() - begun
                row.cpu_seconds.append((_cpu_seconds() - busy) / len(manifest))
                (array,) = Path(folder).glob("*/crops.bin")
                row.extra = {"images": len(manifest), "bytes": array.stat().st_size}
            return seconds / len(manifest)

        self.race([(row, partial(build, row)) for row in rows], seconds=math.inf)
        return rows


def _cpu_seconds() -> float:
    """Return the CPU time of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def test_store(report):
    report()
