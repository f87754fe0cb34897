"""Bootstrap samples of test images, drawn by cluster (a lesion or a patient) within domains and classes.

Images of one lesion or patient resemble each other, so that a sample draws clusters, with all images of each. Strata
keep the test set's design: every domain and class keeps its number of clusters. A stratum of m clusters gets m - 1
draws with replacement, weighted by m / (m - 1), because m draws would understate the variance by the factor
(m - 1) / m, which matters for the rare classes that medical test sets have (Rao and Wu, Resampling inference with
complex survey data, Journal of the American Statistical Association, 1988). A stratum of a single cluster cannot show
how much it varies and stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastccsa.system.errors import InputError

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

REPLICATES = 10_000
_BLOCK_BYTES = 2**21  # the weights of a block of samples stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Statistic:
    """A number that is computed from weighted test images.

    Attributes:
        rows: the images that it concerns, int64 [m].
        compute: takes weights float32 [samples, m] of those images and returns the value of each sample, [samples];
            NaN where the sample does not define it.
    """

    rows: Indices
    compute: Callable[[Floats], npt.NDArray[np.floating]]


class Resamples:
    """Bootstrap samples of n test images.

    All statistics use the same samples, so that differences between models, which see the same images, are paired.

    Args:
        targets: true class of each image, int64 [n].
        domains: domain of each image, int64 [n].
        clusters: number of the cluster that each image belongs to, int64 [n]; None makes each image its own. A cluster
            that occurs in several domains counts as one in each.
        replicates: number of samples.
        seed: seed of the draws.

    Raises:
        InputError: the arrays have different shapes, or there is no image.
    """

    def __init__(
        self,
        targets: Indices,
        domains: Indices,
        clusters: Indices | None = None,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        clusters = np.arange(len(targets)) if clusters is None else clusters
        if targets.ndim != 1 or not (targets.shape == domains.shape == clusters.shape) or not len(targets):
            raise InputError(
                f"targets {targets.shape}, domains {domains.shape} and clusters {clusters.shape} must have one value "
                "per test image"
            )
        self.targets, self.domains, self.replicates, self.seed = targets, domains, replicates, seed
        _, self._cluster_of = np.unique(np.stack([domains, clusters]), axis=1, return_inverse=True)
        self._cluster_of = self._cluster_of.reshape(-1)
        self.clusters = int(self._cluster_of.max()) + 1
        self._strata = _strata(targets, domains, self._cluster_of)

    def weights(self) -> Iterator[Floats]:
        """Yield the weight of each image in each sample, in blocks float32 [samples, n]."""
        size = max(_BLOCK_BYTES // (4 * len(self.targets)), 1)
        for number, start in enumerate(range(0, self.replicates, size)):
            count = min(size, self.replicates - start)
            random = np.random.default_rng([self.seed, number])
            drawn = np.ones((count, self.clusters), np.float32)
            for stratum in self._strata:
                m = len(stratum)
                if m == 1:
                    continue
                picks = random.integers(m, size=(count, m - 1)) + m * np.arange(count)[:, None]
                times = np.bincount(picks.ravel(), minlength=count * m).reshape(count, m)
                drawn[:, stratum] = times * (m / (m - 1))
            yield drawn[:, self._cluster_of]

    def compute(self, statistics: Sequence[Statistic]) -> tuple[npt.NDArray[np.float64], Floats]:
        """Return the values of ``statistics`` on the test images, [k], and on the samples, [k, replicates]."""
        points = np.array(
            [float(each.compute(np.ones((1, len(each.rows)), np.float32))[0]) for each in statistics], np.float64
        )
        samples = np.empty((len(statistics), self.replicates), np.float32)
        # Statistics of the same images share the copy of their weights.
        together: dict[int, list[int]] = {}
        for k, each in enumerate(statistics):
            together.setdefault(id(each.rows), []).append(k)
        start = 0
        for block in self.weights():
            for members in together.values():
                part = np.ascontiguousarray(block[:, statistics[members[0]].rows])
                for k in members:
                    samples[k, start : start + len(block)] = statistics[k].compute(part)
            start += len(block)
        return points, samples


def _strata(targets: Indices, domains: Indices, cluster_of: Indices) -> list[Indices]:
    """Return the clusters of each stratum: those of one domain whose rarest class is the same.

    A lesion shows a single class. A patient may show several; taking the rarest keeps that class in every sample.
    """
    classes = int(targets.max()) + 1
    counts = np.bincount(domains * classes + targets, minlength=(int(domains.max()) + 1) * classes)
    order = np.argsort(counts[domains * classes + targets], kind="stable")
    _, first = np.unique(cluster_of[order], return_index=True)  # the image of the rarest class of each cluster
    rarest = order[first]
    cell = domains[rarest] * classes + targets[rarest]
    return [np.flatnonzero(cell == value) for value in np.unique(cell)]
