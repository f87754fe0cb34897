"""A batch of 32 pairs and the memory that is kept for it, by the number of images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.harness import benchmark
from benchmarks.harness.results import OURS, RIVAL, Row
from fastccsa.sampling import PairSampler

BATCH = 32
SIZES, LARGE = (10**4, 10**6), 10**8
BATCHES, CONSTRUCTION, EPOCHS = "a batch", "construction", "the first batch of another epoch"


class Fastccsa:
    """The package's sampler: the permutation is computed, candidates lie in order of domain and class."""

    def __init__(self, labels: np.ndarray, domains: np.ndarray) -> None:
        self.sampler = PairSampler(labels, domains, batch_size=BATCH)
        self.bytes = self.sampler.nbytes

    def batch(self, step: int) -> Any:
        return self.sampler.batch(0, step)


class Naive:
    """The same policy the obvious way: a stored permutation, candidates searched for each draw."""

    def __init__(self, labels: np.ndarray, domains: np.ndarray) -> None:
        self.labels, self.domains = labels, domains
        self.rng = np.random.default_rng(0)
        self.order = self.rng.permutation(len(labels))
        sizes = np.bincount(domains)
        sizes[0] = 0
        self.shares = sizes / sizes.sum()
        self.bytes = self.order.nbytes

    def batch(self, step: int) -> Any:
        first = self.order[step * BATCH : (step + 1) * BATCH]
        return first, np.array([self.partner(image) for image in first])

    def partner(self, image: int) -> int:
        same = self.labels == self.labels[image]
        asked = same if self.rng.random() < 0.25 else ~same
        secondary = self.rng.choice(len(self.shares), p=self.shares)
        candidates = np.flatnonzero((self.domains == secondary) & asked)
        if len(candidates) == 0:
            candidates = np.flatnonzero((self.domains == 0) & asked)
        return int(self.rng.choice(candidates))


class Randperm:
    """Single images as torch's RandomSampler draws them: what only a stored permutation costs."""

    def __init__(self, labels: np.ndarray, domains: np.ndarray) -> None:
        self.order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        self.bytes = self.order.numel() * self.order.element_size()

    def batch(self, step: int) -> Any:
        return self.order[step * BATCH : (step + 1) * BATCH].tolist()


CONTESTANTS = {"fastccsa": Fastccsa, "naive": Naive, "randperm": Randperm}


@dataclass(frozen=True)
class Cell:
    """What is measured, on how many images."""

    what: str
    images: int

    @property
    def title(self) -> str:
        return f"{self.what}, {self.images:,} images"


class Benchmark(benchmark.Benchmark):
    """Measures batches, constructions, and that nothing is shuffled when an epoch begins."""

    def cells(self) -> list[Cell]:
        sizes = (*SIZES, LARGE) if self.options.full else SIZES
        return [Cell(what, size) for size in sizes for what in (BATCHES, CONSTRUCTION, EPOCHS)]

    def names(self) -> list[str]:
        return list(CONTESTANTS)

    def measure(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        data, turns = images(cell.images), []
        for name in names:
            if name == "fastccsa" or cell.what != EPOCHS:
                made = CONTESTANTS[name](*data)
                row = Row(name, OURS if name == "fastccsa" else RIVAL, peak_bytes=made.bytes)
                turns.append((row, self.calls(self._call(cell, name, made, data))))
        self.race(turns)
        return [row for row, _ in turns]

    def _call(self, cell: Cell, name: str, made: Any, data: Any) -> Callable[[], Any]:
        number = itertools.count()
        if cell.what == CONSTRUCTION:
            return lambda: CONTESTANTS[name](*data)
        if cell.what == EPOCHS:
            return lambda: made.sampler.batch(next(number), 0)
        # Scattered steps, so that caches are cold.
        return lambda: made.batch(next(number) * 7919 % (cell.images // BATCH))


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and domains, int8 ``[size]``, about as unbalanced as in the paper's Table 1."""
    rng = np.random.default_rng(0)
    classes = np.cumsum([0.67, 0.11, 0.11, 0.05, 0.03, 0.02])
    domains = np.cumsum([0.40, 0.05, 0.08, 0.12, 0.01, 0.33])
    return (
        np.searchsorted(classes, rng.random(size, dtype=np.float32)).astype(np.int8),
        np.searchsorted(domains, rng.random(size, dtype=np.float32)).astype(np.int8),
    )


def test_sampler(report):
    report()
