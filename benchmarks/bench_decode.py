"""Decoding the regions of JPEGs that training needs: CPU time per image, on one thread.

The regions and the factors by which they are reduced are those of the augmentation, and all contestants get the same. A
turn decodes each image once. Times are CPU times, so that other work on the machine disturbs them less.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace

import click
import numpy as np
from PIL import Image

from benchmarks.harness import benchmark
from benchmarks.harness.benchmark import CannotRun
from benchmarks.harness.results import Row
from benchmarks.harness.turns import Turn
from benchmarks.images.decoders import DECODERS, Decode, Region
from benchmarks.images.files import SHAPES, Collection, collections
from fastccsa.images import Transforms
from fastccsa.images.transforms import find_regions, find_scales

T = Transforms()
Task = tuple[np.ndarray, tuple[int, int], Region, int]  # the arguments of a decoder


class Benchmark(benchmark.Benchmark):
    """Measures decoders of regions."""

    def __init__(self, options: SimpleNamespace) -> None:
        super().__init__(SimpleNamespace(**vars(options) | {"threads": 1}))

    def cells(self) -> list[Collection]:
        return collections(self.options, SHAPES)

    def names(self) -> list[str]:
        for name in self.options.contestant:
            if name not in DECODERS:
                known = f"no contestant is called {name!r}; there are {', '.join(DECODERS)}"
                raise click.BadParameter(known, param_hint="--contestant")
        return [name for name in DECODERS if name in (self.options.contestant or DECODERS)]

    def measure(self, cell: Collection, names: Sequence[str]) -> list[Row]:
        with cell.open() as files:
            contents = [np.fromfile(path, np.uint8) for path in files.paths]
            sizes = []
            for path in files.paths:
                with Image.open(path) as image:
                    sizes.append((image.height, image.width))
        tasks = list(zip(contents, sizes, *_regions(sizes), strict=True))
        rows = [Row(name, DECODERS[name][0], calls=len(tasks)) for name in names]
        turns = [(row, self.try_out(row, partial(_turn, DECODERS[row.contestant][1], tasks))) for row in rows]
        self.race(turns)
        return rows


def _turn(decode: Decode, tasks: list[Task]) -> Turn:
    if decode(*tasks[0]) is None:
        raise CannotRun("it declines the file")

    def turn() -> float:
        begun = time.process_time()
        for task in tasks:
            decode(*task)
        return (time.process_time() - begun) / len(tasks)

    return turn


def _regions(sizes: list[tuple[int, int]]) -> tuple[list[Region], list[int]]:
    """Return the region of each image that an augmentation decodes, and the factor by which it is reduced."""
    shapes = np.array(sizes, np.int64)
    views = T.draw(0, 0, np.arange(len(shapes)), 1)
    scales = find_scales(T, views, shapes)
    regions = find_regions(T, views, shapes, np.array([T.size, T.size]), scales).decode
    return [tuple(region) for region in regions.tolist()], scales.tolist()


def test_decode(report):
    report()
