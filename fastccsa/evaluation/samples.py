"""Metrics of several models on the same test images, with bootstrap samples, from which intervals are made."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from fastccsa.evaluation.intervals import Interval, interval
from fastccsa.evaluation.metrics import Case, Metric, statistic
from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.resampling import REPLICATES, Indices, Resamples, Statistic
from fastccsa.evaluation.tuning import Tuning
from fastccsa.system.errors import InputError

Values = npt.NDArray[np.float64]


class Samples:
    """Values and bootstrap samples of metrics, by model, metric and domain.

    Args:
        models: outputs of each model, on the same images in the same order.
        metrics: the metrics.
        positive: class that is told from the rest, such as melanoma; None if there is none.
        tunings: what was chosen on validation images for each model; None if no model has any.
        clusters: lesion or patient of each image, int64 [n]; None makes each image a cluster.
        parts: the part of the images, int64 [n], that takes the place of their domain wherever values are computed;
            samples are still drawn by domain. None: their domain.
        trained: for each model, the domains that it was trained on, as numbers; None leaves out the metrics that tell
            other domains from these, as ``parts`` does.
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
        tunings: Sequence[Tuning | None] | None = None,
        clusters: Indices | None = None,
        parts: Indices | None = None,
        trained: Sequence[Collection[int]] | None = None,
        replicates: int = REPLICATES,
        seed: int = 0,
    ) -> None:
        if not models:
            raise InputError("there is no model to score")
        first = models[0]
        for other in models[1:]:
            if any(not np.array_equal(getattr(first, name), getattr(other, name)) for name in ("targets", "domains")):
                raise InputError("the models were tested on different images: score them separately")
        self._seed = seed
        known = trained if parts is None else None
        parts = first.domains if parts is None else parts
        resamples = Resamples(first.targets, first.domains, clusters, replicates, seed)
        self.clusters = resamples.clusters
        tunings = [None] * len(models) if tunings is None else tunings
        self._place: dict[tuple[int, str, int], int] = {}
        statistics: list[Statistic] = []
        self._rows = {int(part): np.flatnonzero(parts == part) for part in np.unique(parts)}
        with_training: dict[tuple[int, frozenset[int]], Indices] = {}  # one array for all models: they share weights
        for domain, rows in self._rows.items():
            for number, (model, own) in enumerate(zip(models, tunings, strict=True)):
                index = model.classes.index(positive) if positive in model.classes else None
                cases = {False: (Case(model.take(rows), index, own), rows)}
                domains = frozenset(() if known is None else known[number])
                if domains and domain not in domains:
                    both = with_training.setdefault((domain, domains), self._with(rows, domains))
                    unseen = first.domains[both] == domain
                    cases[True] = (Case(model.take(both), index, own, unseen), both)
                for metric in metrics:
                    case, concerned = cases.get(metric.of_unseen, (None, rows))
                    found = None if case is None else statistic(metric, case, concerned)
                    if found is not None:
                        self._place[number, metric.key, domain] = len(statistics)
                        statistics.append(found)
        self._points, self._samples = resamples.compute(statistics)

    def _with(self, rows: Indices, domains: Collection[int]) -> Indices:
        """Return the images ``rows`` and those of ``domains``."""
        return np.concatenate([rows, *(self._rows[domain] for domain in sorted(domains) if domain in self._rows)])

    def interval(
        self,
        metric: str,
        models: Sequence[int],
        groups: Sequence[Sequence[int]],
        minus: Sequence[int] | None = None,
        minus_groups: Sequence[Sequence[int]] | None = None,
    ) -> Interval | None:
        """Return the mean of a metric over seeds and domains, or a paired difference of it, with its interval.

        Args:
            metric: key of the metric.
            models: the models of the seeds, as numbers.
            groups: for each of them the domains over which it is averaged; those where the metric is not defined (for
                either model of a difference) are left out.
            minus: models of the same seeds, whose values are subtracted.
            minus_groups: the domains of those, if they are others than ``groups``.

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
        other_groups = groups if minus_groups is None else minus_groups
        found = []
        for model, other, group, other_group in zip(models, others, groups, other_groups, strict=True):
            used = self._defined(metric, model, group)
            if other is None:
                found.append(self._mean(metric, model, used))
                continue
            other_used = self._defined(metric, other, other_group)
            if minus_groups is None:  # a difference over the same domains
                used = other_used = [domain for domain in used if domain in other_used]
            own, less = self._mean(metric, model, used), self._mean(metric, other, other_used)
            found.append(None if own is None or less is None else (own[0] - less[0], own[1] - less[1]))
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        points = np.array([point for point, _ in known])
        return interval(points, np.stack([samples for _, samples in known]), self._seed, minus is not None)

    def _defined(self, metric: str, model: int, group: Sequence[int]) -> list[int]:
        """Return the domains of a group that define a metric."""
        if not len(group):
            raise InputError("a group of domains is empty")
        for domain in group:
            if domain not in self._rows:
                raise InputError(f"domain {domain} has no test image")
        return [domain for domain in group if (model, metric, domain) in self._place]

    def _mean(self, metric: str, model: int, domains: Sequence[int]) -> tuple[float, Values] | None:
        """Return the mean over domains on the test images, and on the samples [replicates]; None without domains."""
        places = [self._place[model, metric, domain] for domain in domains]
        if not places:
            return None
        return float(self._points[places].mean()), self._samples[places].mean(axis=0, dtype=np.float64)
