"""Intervals of recalls and of differences between recalls, by a two-level bootstrap over seeds and test images.

Results vary for two reasons: other seeds would train other networks, and other test images would score them
differently. A bootstrap sample draws both with replacement: the seeds (the outer level), and the test images within
each domain and class (the inner level; every class stays present). All seeds are scored on the same images, so that a
sample uses one draw of images for all its seeds. A new draw for each seed would pretend that every seed had a test set
of its own, and the uncertainty from the images would seem to shrink with the number of seeds. Both arms of a difference
are scored on the same seeds and images. The interval spans the 2.5 and 97.5 percentiles of the samples.

The bootstrap and its percentile interval are those of Efron and Tibshirani, An Introduction to the Bootstrap (1993),
chapters 8 and 13; drawing both factors of a table of seeds and images is the pigeonhole bootstrap (Owen, The pigeonhole
bootstrap, Annals of Applied Statistics, 2007). The noise of a single prediction enters at both levels, so that the
intervals are too long where it dominates. Where the differences between seeds dominate, they are too short, by a
factor of sqrt(1 - 1/seeds) and by the ratio of the normal distribution's quantile to Student's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastccsa.system.errors import InputError

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

REPLICATES = 2000
PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval.

    Attributes:
        estimate: the mean.
        low, high: limits of the interval.
        seeds: number of seeds.
    """

    estimate: float
    low: float
    high: float
    seeds: int

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval includes the variation between seeds; with a single seed only that between images."""
        return self.seeds > 1

    def text(self, scale: float = 100, digits: int = 1, signed: bool = False) -> str:
        """Return ``estimate [low, high]``, times ``scale``; ``signed`` is for differences."""
        sign = "+" if signed else ""
        values = (
            round(scale * value, digits) + 0.0 for value in (self.estimate, self.low, self.high)
        )  # -0.0 becomes 0.0
        numbers = (f"{value:{sign}.{digits}f}" for value in values)
        return "{} [{}, {}]".format(*numbers) + ("" if self.covers_seeds else " (one seed)")


class Bootstrap:
    """Bootstrap samples of a set of test images, for any number of intervals.

    All intervals use the same samples of images, so that those of one table agree with each other.

    Args:
        targets: true class of each test image, int64 [n].
        domains: domain of each test image, int64 [n].
        replicates: number of bootstrap samples; they take ``4 * replicates * n`` bytes.
        seed: seed of the draws.

    Raises:
        InputError: the arrays have different shapes, or there is no image.
    """

    def __init__(self, targets: Indices, domains: Indices, replicates: int = REPLICATES, seed: int = 0) -> None:
        if targets.ndim != 1 or targets.shape != domains.shape or not len(targets):
            raise InputError(f"targets {targets.shape} and domains {domains.shape} must have one value per test image")
        self.targets, self.domains, self.seed = targets, domains, seed
        random = np.random.default_rng(seed)
        # How often each sample contains each image, [replicates, n].
        self._times: Floats = np.empty((replicates, len(targets)), np.float32)
        for domain in np.unique(domains):
            for target in np.unique(targets[domains == domain]):
                cell = np.flatnonzero((domains == domain) & (targets == target))
                drawn = random.integers(len(cell), size=(replicates, len(cell)))
                drawn += len(cell) * np.arange(replicates)[:, None]
                counts = np.bincount(drawn.ravel(), minlength=drawn.size)
                self._times[:, cell] = counts.reshape(drawn.shape)

    def recall(self, predictions: Indices, groups: Sequence[Sequence[int]]) -> Interval:
        """Return the macro-average recall of a group of domains, averaged over seeds, with its interval.

        Args:
            predictions: predicted class of each image by seed, int64 [seeds, n].
            groups: for each seed the domains over which it is averaged, as in ``domains``.

        Returns:
            The mean over seeds of the mean over domains of the macro-average recall (over the classes that a domain's
            test images show), in [0, 1].

        Raises:
            InputError: the shapes do not match, or a group is empty or has a domain without test images.
        """
        return self._interval(self._right(predictions), groups)

    def difference(self, first: Indices, second: Indices, groups: Sequence[Sequence[int]]) -> Interval:
        """Return how much higher the recall of ``first`` is than that of ``second``, with the paired interval.

        Args:
            first, second: predictions of two arms with the same seeds, int64 [seeds, n].
            groups: for each seed the domains over which both are averaged.

        Returns:
            The difference of what `recall` returns for each, in [-1, 1].

        Raises:
            InputError: the shapes do not match, or a group is empty or has a domain without test images.
        """
        if first.shape != second.shape:
            raise InputError(f"predictions {first.shape} and {second.shape} must be of the same seeds and images")
        return self._interval(self._right(first) - self._right(second), groups)

    def _right(self, predictions: Indices) -> Floats:
        if predictions.ndim != 2 or predictions.shape[1] != len(self.targets):
            raise InputError(f"predictions {predictions.shape} must be [seeds, {len(self.targets)}]")
        return (predictions == self.targets).astype(np.float32)

    def _interval(self, values: Floats, groups: Sequence[Sequence[int]]) -> Interval:
        """Return the interval of the mean over seeds of the weighted sums of ``values`` [seeds, n]."""
        seeds = len(values)
        if len(groups) != seeds or not seeds:
            raise InputError(
                f"there are {len(groups)} groups of domains for {seeds} seeds: give one per seed, of 1 or more"
            )
        weighted = values * np.stack([self._weights(group) for group in groups])
        by_seed = self._times @ weighted.T
        # The outer level: how often each sample contains each seed. It is the identity for a single seed.
        drawn = np.random.default_rng([self.seed, seeds]).multinomial(seeds, [1 / seeds] * seeds, size=len(by_seed))
        low, high = np.percentile((by_seed * drawn).sum(axis=1) / seeds, PERCENTILES)
        return Interval(float(weighted.sum(axis=1, dtype=np.float64).mean()), float(low), float(high), seeds)

    def _weights(self, group: Sequence[int]) -> Floats:
        """Return the weight of each image in the mean recall of ``group``, [n]."""
        weights = np.zeros(len(self.targets), np.float32)
        for domain in group:
            here = self.domains == domain
            if not here.any():
                raise InputError(f"domain {domain} has no test image")
            classes, counts = np.unique(self.targets[here], return_counts=True)
            each = 1 / (len(group) * len(classes) * counts)
            weights[here] = each[np.searchsorted(classes, self.targets[here])]
        if not len(group):
            raise InputError("a group of domains is empty")
        return weights
