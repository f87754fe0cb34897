"""The store of a manifest's crops: the time to make it, per image, and its size."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

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
        return ("dali", "torchvision")

    def measure(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        manifest = Manifest.read(cell.manifest)
        source = ImageSource(manifest.paths, manifest.labels, manifest.domain_indices)
        rows = [Row(name, OURS) for name in names]

        def build(row: Row) -> float:
            with tempfile.TemporaryDirectory() as folder:
                begun = perf_counter()
                open_store(source, Transforms(cell.size), Path(folder), row.contestant)
                seconds = perf_counter() - begun
                (array,) = Path(folder).glob("*/crops.bin")
                row.extra = {"images": len(manifest), "bytes": array.stat().st_size}
            return seconds / len(manifest)

        self.race([(row, partial(build, row)) for row in rows], seconds=math.inf)
        return rows


def test_store(report):
    report()
