"""Metrics of several models on the same test images, with bootstrap samples, from which intervals are made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fastccsa.evaluation.intervals import Interval, interval
from fastccsa.evaluation.metrics import Case, Metric, Thresholds, statistic
from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.resampling import REPLICATES, Indices, Resamples, Statistic
from fastccsa.system.errors import InputError

Values = npt.NDArray[np.float64]


class Samples:
    """Values and bootstrap samples of metrics, by model, metric and domain.

    Args:
        models: outputs of each model, on the same images in the same order.
        metrics: the metrics.
        positive: class that is told from the rest, such as melanoma; None if there is none.
        thresholds: of each model, for that class; None if no model has any.
        clusters: lesion or patient of each image, int64 [n]; None makes each image a cluster.
        replicates: number of bootstrap samples.
        seed: seed of the draws.

    Attributes:
        clusters: number of clusters.

    Raises:
        InputError: there is no model, or the models saw different images.
    """

    def __init__(
        self,
        models: Sequence[Outputs],
        metrics: Sequence[Metric],
        *,
        positive: str | None = None,
        thresholds: Sequence[Thresholds | None] | None = None,
        clusters: Indices | None = None,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        if not models:
            raise InputError("there is no model to score")
        first = models[0]
        for other in models[1:]:
            if any(not np.array_equal(getattr(first, name), getattr(other, name)) for name in ("targets", "domains")):
                raise InputError("the models were tested on different images: score them separately")
        self._seed, self._names = seed, first.domain_names
        resamples = Resamples(first.targets, first.domains, clusters, replicates, seed)
        self.clusters = resamples.clusters
        thresholds = [None] * len(models) if thresholds is None else thresholds
        self._place: dict[tuple[int, str, int], int] = {}
        statistics: list[Statistic] = []
        self._rows = {int(domain): np.flatnonzero(first.domains == domain) for domain in np.unique(first.domains)}
        for domain, rows in self._rows.items():
            for number, (model, own) in enumerate(zip(models, thresholds, strict=True)):
                index = model.classes.index(positive) if positive in model.classes else None
                case = Case(model.take(rows), index, own)
                for metric in metrics:
                    found = statistic(metric, case, rows)
                    if found is not None:
                        self._place[number, metric.key, domain] = len(statistics)
                        statistics.append(found)
        self._points, self._samples = resamples.compute(statistics)

    def interval(
        self,
        metric: str,
        models: Sequence[int],
        groups: Sequence[Sequence[int]],
        minus: Sequence[int] | None = None,
    ) -> Interval | None:
        """Return the mean of a metric over seeds and domains, or a paired difference of it, with its interval.

        Args:
            metric: key of the metric.
            models: the models of the seeds, as numbers.
            groups: for each of them the domains over which it is averaged; those where the metric is not defined (for
                either model of a difference) are left out.
            minus: models of the same seeds, whose values are subtracted.

        Returns:
            The interval; None if the metric is defined on none of a seed's domains.

        Raises:
            InputError: a group is empty or has a domain without test images, or the numbers do not match.
        """
        if len(groups) != len(models) or not models or (minus is not None and len(minus) != len(models)):
            raise InputError(
                f"there are {len(groups)} groups of domains for {len(models)} seeds"
                f"{'' if minus is None else f' and {len(minus)} others'}: give one per seed, of 1 or more"
            )
        others = [None] * len(models) if minus is None else list(minus)
        found = [self._mean(metric, *each) for each in zip(models, others, groups, strict=True)]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        points = np.array([point for point, _ in known])
        return interval(points, np.stack([samples for _, samples in known]), self._seed, minus is not None)

    def _mean(self, metric: str, model: int, other: int | None, group: Sequence[int]) -> tuple[float, Values] | None:
        """Return the mean over a group of domains on the test images, and on the samples [replicates]."""
        if not len(group):
            raise InputError("a group of domains is empty")
        for domain in group:
            if domain not in self._rows:
                name = self._names[domain] if domain < len(self._names) else domain
                raise InputError(f"domain {name} has no test image")
        signs = {model: 1} if other is None else {model: 1, other: -1}
        if model == other:
            signs = {}
        used = [d for d in group if all((one, metric, d) in self._place for one in (model, other) if one is not None)]
        if not used:
            return None
        point, samples = 0.0, np.zeros(self._samples.shape[1])
        for one, sign in signs.items():
            for domain in used:
                place = self._place[one, metric, domain]
                point += sign * float(self._points[place])
                samples += sign * self._samples[place]
        return point / len(used), samples / len(used)
