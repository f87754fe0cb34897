"""95 % intervals of metrics and of their differences, over test images and seeds.

Results vary for two reasons: other test images would score the networks differently, and other seeds would train other
networks. The first is measured by bootstrap samples of the test images (:mod:`fastccsa.evaluation.resampling`). All
seeds are scored on the same images, so that a sample uses one draw of images for all its seeds; a new draw for each
would pretend that every seed had a test set of its own. The second is measured by the standard deviation between the
seeds. A sample adds a draw of Student's t with seeds - 1 degrees of freedom, times the standard error of the mean over
the seeds; drawing seeds with replacement instead would give intervals that are too short (with five seeds by 1.6
times, with three by 2.7). The interval spans the 2.5 and 97.5 percentiles of the samples.

Differences between seeds include the noise of single predictions, which the images' samples hold too, so that the
intervals are somewhat too long where it dominates. Two seeds cannot show how much seeds vary: with fewer than three,
the interval is about these networks, and covers the variation between images only.

The bootstrap and its percentile interval are those of Efron and Tibshirani, An Introduction to the Bootstrap (1993),
chapters 8 and 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t as student

from fastccsa.system.errors import InputError

PERCENTILES = (2.5, 97.5)
SEEDS_NEEDED = 3  # to tell how much seeds vary

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % interval.

    Attributes:
        estimate: the mean.
        low, high: limits of the interval.
        seeds: number of seeds.
        p: for a difference, the two-sided p-value of the hypothesis that it is 0; otherwise None.
    """

    estimate: float
    low: float
    high: float
    seeds: int
    p: float | None = None

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval includes the variation between seeds, and not only that between images."""
        return self.seeds >= SEEDS_NEEDED

    def text(self, scale: float = 100, digits: int = 1, signed: bool = False) -> str:
        """Return ``estimate [low, high]``, times ``scale``; ``signed`` is for differences."""
        sign = "+" if signed else ""
        values = (
            round(scale * value, digits) + 0.0 for value in (self.estimate, self.low, self.high)
        )  # -0.0 becomes 0.0
        numbers = (f"{value:{sign}.{digits}f}" for value in values)
        few = {1: " (one seed)", 2: " (two seeds)"}.get(self.seeds, "")
        return "{} [{}, {}]".format(*numbers) + few


def interval(points: Values, samples: npt.NDArray[np.floating], seed: int = 0, difference: bool = False) -> Interval:
    """Return the interval of a mean over seeds.

    Args:
        points: the value of each seed on the test images, [seeds].
        samples: the values on the bootstrap samples of the test images, [seeds, replicates].
        seed: seed of the draws from Student's distribution.
        difference: the values are differences, for which a p-value is wanted.

    Raises:
        InputError: there is no seed.
    """
    seeds, replicates = samples.shape
    if not seeds:
        raise InputError("an interval needs the results of at least one seed")
    means = samples.mean(axis=0, dtype=np.float64)
    if seeds >= SEEDS_NEEDED:
        # Quantiles in random order in place of random draws, which would be noisier in the tails.
        draws = student.ppf((np.arange(replicates) + 0.5) / replicates, seeds - 1)
        error = np.std(points, ddof=1) / np.sqrt(seeds)
        means += error * np.random.default_rng([seed, seeds]).permutation(draws)
    means = means[~np.isnan(means)]  # a sample without images of some class may not define the metric
    low, high = np.percentile(means, PERCENTILES)
    p = None
    if difference:
        # As if one more sample lay on the far side: a finite number of samples cannot show that p is 0.
        tails = [(int(side.sum()) + 1) / (len(means) + 1) for side in (means <= 0, means >= 0)]
        p = min(2 * min(tails), 1.0)
    return Interval(float(points.mean()), float(low), float(high), seeds, p)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for the number of comparisons (Holm, Scandinavian Journal of Statistics, 1979)."""
    order = np.argsort(values)
    factors = np.arange(len(values), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(np.asarray(values, np.float64)[order] * factors), 1)
    found = np.empty(len(values))
    found[order] = corrected
    return [float(value) for value in found]
