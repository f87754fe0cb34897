"""What a batch of 32 pairs costs, and what is kept for it, by the number of images.

    python -m pytest benchmarks/bench_sampler.py --benchmark-group-by=func,param:size
    FASTCCSA_BENCH_LARGE=1 python -m pytest ...     also 100 million images: some minutes, 4 GB

Contenders:
    fastccsa   PairSampler: the permutation is computed, candidates lie in order of domain and class
    naive      the same policy the obvious way: a stored permutation, candidates searched for each draw
    randperm   single images as torch's RandomSampler draws them: what a stored permutation alone costs
               (its epochs must begin at step 0, and there are no pairs)
With --benchmark-json=FILE, "bytes_per_image" under extra_info is what each keeps beyond the caller's labels
and domains (fastccsa's includes its own copy of both).
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import pytest
import torch

from fastccsa.sampling import PairSampler

BATCH = 32
MILLION, LARGE = 10**6, 10**8
large = pytest.mark.skipif(os.environ.get("FASTCCSA_BENCH_LARGE") != "1", reason="set FASTCCSA_BENCH_LARGE=1 to run")
SIZES = [10**4, MILLION, pytest.param(LARGE, marks=large)]


class Fastccsa:
    """The package's sampler."""

    def __init__(self, labels: np.ndarray, domains: np.ndarray) -> None:
        self.sampler = PairSampler(labels, domains, batch_size=BATCH)
        self.bytes = self.sampler.nbytes

    def batch(self, step: int) -> Any:
        return self.sampler.batch(0, step)


class Naive:
    """The same policy with a stored permutation and a search per draw."""

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
        wanted = same if self.rng.random() < 0.25 else ~same
        secondary = self.rng.choice(len(self.shares), p=self.shares)
        candidates = np.flatnonzero((self.domains == secondary) & wanted)
        if len(candidates) == 0:
            candidates = np.flatnonzero((self.domains == 0) & wanted)
        return int(self.rng.choice(candidates))


class Randperm:
    """A stored permutation of single images, kept as torch's RandomSampler keeps it."""

    def __init__(self, labels: np.ndarray, domains: np.ndarray) -> None:
        self.order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        self.bytes = self.order.numel() * self.order.element_size()

    def batch(self, step: int) -> Any:
        return self.order[step * BATCH : (step + 1) * BATCH].tolist()


CONTENDERS = {"fastccsa": Fastccsa, "naive": Naive, "randperm": Randperm}


def images(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and domains, int8 ``[size]``, with the imbalance of the paper's Table 1 in rough strokes."""
    rng = np.random.default_rng(0)
    classes = np.cumsum([0.67, 0.11, 0.11, 0.05, 0.03, 0.02])
    domains = np.cumsum([0.40, 0.05, 0.08, 0.12, 0.01, 0.33])
    return (
        np.searchsorted(classes, rng.random(size, dtype=np.float32)).astype(np.int8),
        np.searchsorted(domains, rng.random(size, dtype=np.float32)).astype(np.int8),
    )


@pytest.fixture(scope="module")
def built():
    """One contender at a time, so that 100 million images are held once."""
    kept: dict[tuple[str, int], Any] = {}

    def get(name: str, size: int) -> Any:
        if (name, size) not in kept:
            kept.clear()
            kept[name, size] = CONTENDERS[name](*images(size))
        return kept[name, size]

    return get


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("size", SIZES)
def test_batch(benchmark, built, size, contender):
    sampler = built(contender, size)
    benchmark.extra_info["bytes_per_image"] = sampler.bytes / size
    # Scattered steps, as a cold cache would meet them.
    steps = (step * 7919 % (size // BATCH) for step in itertools.count())
    searches = contender == "naive" and size >= MILLION
    rounds, iterations = (1, 1) if searches else (200, 20)
    benchmark.pedantic(lambda: sampler.batch(next(steps)), rounds=rounds, iterations=iterations)


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("size", SIZES)
def test_construction(benchmark, size, contender):
    labels, domains = images(size)
    rounds = 1 if size == LARGE else 5
    benchmark.pedantic(CONTENDERS[contender], args=(labels, domains), rounds=rounds)


@pytest.mark.parametrize("size", SIZES)
def test_first_batch_of_another_epoch(benchmark, built, size):
    """Nothing is shuffled when an epoch begins."""
    sampler = built("fastccsa", size).sampler
    epochs = itertools.count()
    benchmark.pedantic(lambda: sampler.batch(next(epochs), 0), rounds=200, iterations=20)
