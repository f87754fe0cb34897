"""The time of a batch of 32 pairs, and the memory that a sampler keeps, by the number of images."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.harness import benchmark
from benchmarks.harness.results import OURS, RIVAL, Row
from fastccsa.sampling import PairSampler

BATCH = 32
SIZES, LARGE = (10**4, 10**6), 10**8
BATCHES, CONSTRUCTION, EPOCHS = "a batch", "construction", "the first batch of another epoch"


Labels = np.ndarray  # int8, one per image
Made = tuple[Callable[[int, int], Any], int]  # a batch by epoch and step, and the bytes kept beyond the caller's


def ours(labels: Labels, domains: Labels) -> Made:
    """Make the package's sampler: it computes its permutation, and sorts candidates by domain and class."""
    sampler = PairSampler(labels, domains, batch_size=BATCH)
    return sampler.batch, sampler.nbytes


def naive(labels: Labels, domains: Labels) -> Made:
    """Make a sampler with the same policy in the obvious way: a stored permutation, and a search for each draw."""
    rng = np.random.default_rng(0)
    order, shares = rng.permutation(len(labels)), np.bincount(domains).astype(float)
    shares[0] = 0
    shares /= shares.sum()

    def partner(image: int) -> int:
        same = labels == labels[image]
        asked = same if rng.random() < 0.25 else ~same
        candidates = np.flatnonzero((domains == rng.choice(len(shares), p=shares)) & asked)
        if len(candidates) == 0:
            candidates = np.flatnonzero((domains == 0) & asked)
        return int(rng.choice(candidates))

    def batch(epoch: int, step: int) -> Any:
        first = order[step * BATCH : (step + 1) * BATCH]
        return first, np.array([partner(image) for image in first])

    return batch, order.nbytes


def randperm(labels: Labels, domains: Labels) -> Made:
    """Make a sampler of single images like torch's RandomSampler: the cost of the stored permutation only."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return lambda epoch, step: order[step * BATCH : (step + 1) * BATCH].tolist(), order.nbytes


CONTESTANTS = {"fastccsa": ours, "naive": naive, "randperm": randperm}


@dataclass(frozen=True)
class Cell:
    """A quantity to measure, and a number of images."""

    what: str
    images: int

    @property
    def title(self) -> str:
        return f"{self.what}, {self.images:,} images"


class Benchmark(benchmark.Benchmark):
    """Measures batches, constructions, and the start of an epoch, at which nothing is shuffled."""

    def cells(self) -> list[Cell]:
        sizes = (*SIZES, LARGE) if self.options.full else SIZES
        return [Cell(what, size) for size in sizes for what in (BATCHES, CONSTRUCTION, EPOCHS)]

    def names(self) -> list[str]:
        return list(CONTESTANTS)

    def measure(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        data, turns = images(cell.images), []
        for name in names:
            if name == "fastccsa" or cell.what != EPOCHS:
                call, held = call_of(cell, CONTESTANTS[name], data)
                row = Row(name, OURS if name == "fastccsa" else RIVAL, peak_bytes=held)
                turns.append((row, self.calls(call)))
        self.race(turns)
        return [row for row, _ in turns]


def call_of(cell: Cell, make: Callable[..., Made], data: tuple[Labels, Labels]) -> tuple[Callable[[], Any], int]:
    """Return the call of a contestant that is timed, and the bytes that the contestant keeps."""
    (batch, held), number = make(*data), itertools.count()
    if cell.what == CONSTRUCTION:
        return partial(make, *data), held
    if cell.what == EPOCHS:
        return lambda: batch(next(number), 0), held
    # Scattered steps, so that caches are cold.
    return lambda: batch(0, next(number) * 7919 % (cell.images // BATCH)), held


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels and domains, int8 ``[size]``, about as unbalanced as in the paper's Table 1."""
    rng = np.random.default_rng(0)
    classes = np.cumsum([0.67, 0.11, 0.11, 0.05, 0.03, 0.02])
    domains = np.cumsum([0.40, 0.05, 0.08, 0.12, 0.01, 0.33])
    return (
        np.searchsorted(classes, rng.random(size, dtype=np.float32)).astype(np.int8),
        np.searchsorted(domains, rng.random(size, dtype=np.float32)).astype(np.int8),
    )


def test_sampler(report):
    report()
