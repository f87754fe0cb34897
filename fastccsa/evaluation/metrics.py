"""Metrics of a model on weighted test images: the values that tables show, on the images and on bootstrap samples.

Each metric is defined once, for weighted images: the weights of a sample say how often each image occurs in it. Weights
of one give the value that scikit-learn gives.

Classes without test images in a domain are left out of its means, as in scikit-learn's balanced accuracy (which the
macro-average recall equals). A ranking metric of one class against the rest needs images of the class and of others,
so that a domain with a single class has none. A threshold is chosen on validation images and judged on test images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fastccsa.evaluation.calibration import BINS
from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.resampling import Floats, Indices, Statistic

SENSITIVITY_FLOOR = 0.8  # of the partial area, as in the ISIC 2024 challenge
FIXED = 0.9  # the specificity (sensitivity) at which the sensitivity (specificity) is judged

Values = npt.NDArray[np.floating]
Compute = Callable[[Floats], Values]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the positive class's probability, chosen on validation images.

    Attributes:
        at_specificity: the lowest threshold with a specificity of at least `FIXED` on the validation images.
        at_sensitivity: the highest threshold with a sensitivity of at least `FIXED` there.
    """

    at_specificity: float
    at_sensitivity: float

    @staticmethod
    def choose(outputs: Outputs, positive: int) -> Thresholds | None:
        """Choose thresholds on validation images; None if they lack positive or negative ones.

        An image is called positive if its probability reaches the threshold.
        """
        scores = outputs.probabilities[:, positive]
        yes, no = np.sort(scores[outputs.targets == positive]), np.sort(scores[outputs.targets != positive])
        if not len(yes) or not len(no):
            return None
        # At most this many negatives may reach the threshold, which lies just above the next one.
        allowed = int(np.floor(len(no) * (1 - FIXED) + 1e-9))
        needed = int(np.ceil(len(yes) * FIXED - 1e-9))
        return Thresholds(float(np.nextafter(no[len(no) - 1 - allowed], np.inf)), float(yes[len(yes) - needed]))


@dataclass(frozen=True, eq=False)
class Case:
    """What the metrics of one domain are computed from.

    Attributes:
        outputs: the outputs on the domain's test images.
        positive: class that is told from the rest, such as melanoma; None if there is none.
        thresholds: the positive class's thresholds; None without validation outputs.
    """

    outputs: Outputs
    positive: int | None = None
    thresholds: Thresholds | None = None

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Softmax of the logits, [n, C]."""
        return self.outputs.probabilities

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction is right, [n]."""
        return self.outputs.predictions == self.outputs.targets

    @cached_property
    def present(self) -> Indices:
        """Classes that the images show."""
        return np.unique(self.outputs.targets)

    def ranked(self) -> list[int]:
        """Return the classes that images of other classes stand against."""
        return [int(one) for one in self.present] if len(self.present) > 1 else []

    def is_positive(self) -> npt.NDArray[np.bool_] | None:
        """Return which images are positive; None unless there are positive and negative ones."""
        if self.positive is None or self.positive not in self.ranked():
            return None
        return self.outputs.targets == self.positive


@dataclass(frozen=True)
class Metric:
    """A metric by domain.

    Attributes:
        key: its name in options and files.
        title: its name in tables; ``{positive}`` stands for the positive class.
        of: returns the function from weights to values for a `Case`; None where the metric is not defined.
        higher_is_better: whether a higher value is better.
        scale: factor for tables: 100 for those in %.
    """

    key: str
    title: str
    of: Callable[[Case], Compute | None]
    higher_is_better: bool = True
    scale: float = 100

    def name(self, positive: str | None) -> str:
        """Return the title, with the name of the positive class."""
        return self.title.format(positive=positive or "positive class")


def _mean_over(parts: Sequence[Compute]) -> Compute | None:
    """Return the mean over several functions, without those that are NaN."""
    if not parts:
        return None

    def compute(weights: Floats) -> Values:
        values = np.stack([part(weights) for part in parts])
        known = ~np.isnan(values)
        with np.errstate(invalid="ignore"):
            found: Values = np.where(known, values, 0).sum(axis=0) / known.sum(axis=0)
        return found

    return compute


def _weighted_mean(values: npt.NDArray[Any], among: npt.NDArray[np.bool_] | None = None) -> Compute:
    """Return the function from weights to the mean of ``values`` [n] over the images ``among``, all by default."""
    inside = np.ones(len(values), np.float32) if among is None else among.astype(np.float32)
    columns = np.stack([values * inside, inside], axis=1).astype(np.float32)

    def compute(weights: Floats) -> Values:
        sums = weights @ columns
        with np.errstate(invalid="ignore"):
            found: Values = sums[:, 0] / sums[:, 1]
        return found

    return compute


def _recall(case: Case) -> Compute | None:
    return _mean_over([_weighted_mean(case.right, case.outputs.targets == one) for one in case.present])


def _accuracy(case: Case) -> Compute:
    return _weighted_mean(case.right)


def _brier(case: Case) -> Compute:
    """Return the multi-class Brier score: the sum over classes of squared errors, in [0, 2]."""
    truth = np.eye(case.probabilities.shape[1])[case.outputs.targets]
    return _weighted_mean(np.square(case.probabilities - truth).sum(axis=1))


def _calibration_error(case: Case) -> Compute:
    confidence = case.probabilities.max(axis=1)
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.zeros((len(place), BINS + 1), np.float32)
    gaps[np.arange(len(place)), place] = confidence - case.right
    gaps[:, BINS] = 1

    def compute(weights: Floats) -> Values:
        sums = weights @ gaps
        found: Values = np.abs(sums[:, :BINS]).sum(axis=1) / sums[:, BINS]
        return found

    return compute


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Images in order of falling scores, in groups; a group is a straight piece of the curves that are drawn from it.

    Images of equal scores form a group. Neighbouring groups without positives are joined, since no metric has a point
    between them; this makes rare positives cheap.

    Attributes:
        order: the images by group and, within a group, negatives first.
        starts: where the images of one group and class begin in ``order``, [parts].
        columns: 1 + the group of each part, [parts].
        positive: whether a part holds positives, [parts].
        groups: number of groups.
    """

    order: Indices
    starts: Indices
    columns: Indices
    positive: npt.NDArray[np.bool_]
    groups: int

    @staticmethod
    def of(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], join_positives: bool) -> _Ranking:
        order = np.argsort(-scores, kind="stable")
        new = np.append(True, np.diff(scores[order]) != 0)
        group = np.cumsum(new) - 1
        yes = np.bincount(group, weights=positive[order]) > 0
        no = np.bincount(group, weights=~positive[order]) > 0
        joins = ~yes[1:] & ~yes[:-1]
        if join_positives:
            joins |= ~no[1:] & ~no[:-1]
        group = np.cumsum(np.append(True, ~joins))[group] - 1
        within = np.lexsort((positive[order], group))
        order, group = order[within], group[within]
        part = 2 * group + positive[order]
        starts = np.flatnonzero(np.append(True, np.diff(part) != 0))
        return _Ranking(order, starts, 1 + group[starts], positive[order][starts], int(group[-1]) + 1)

    def sums(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the weight of the positives and negatives down to each group, [samples, 1 + groups]; 0 first.

        They are sums of a few thousand weights near one: float32 holds them to six digits.
        """
        parts = np.add.reduceat(weights[:, self.order], self.starts, axis=1)
        found = []
        for chosen in (self.positive, ~self.positive):
            sums = np.zeros((len(weights), 1 + self.groups), np.float32)
            sums[:, self.columns[chosen]] = parts[:, chosen]
            found.append(np.cumsum(sums, axis=1))
        return found[0], found[1]


def roc_area(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_], floor: float = 0.0) -> Compute:
    """Return the function from weights to the area under the ROC curve above a sensitivity, divided by the largest one.

    The area is taken along the sensitivity axis, from ``floor`` to 1, of the specificity. Images of equal scores form
    a straight piece of the curve. With ``floor`` 0 it is AUROC; ISIC 2024 uses 0.8, without the division.
    """
    ranking = _Ranking.of(scores, positive, join_positives=True)

    def compute(weights: Floats) -> Values:
        yes, no = ranking.sums(weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            sensitivity, fall_out = yes / yes[:, -1:], no / no[:, -1:]
            low, high = sensitivity[:, :-1], sensitivity[:, 1:]
            start = np.clip(low, floor, None) if floor else low
            width = np.clip(high - start, 0, None)
            # The fall-out in the middle of the part of each piece above the floor.
            rise = fall_out[:, 1:] - fall_out[:, :-1]
            if floor:
                length = high - low
                share = np.divide((start + high) / 2 - low, length, out=np.zeros_like(length), where=length > 0)
            else:
                share = np.float32(0.5)
            middle = fall_out[:, :-1] + rise * share
            found: Values = (width * (1 - middle)).sum(axis=1) / (1 - floor)
        return np.where((yes[:, -1] > 0) & (no[:, -1] > 0), found, np.nan)

    return compute


def average_precision(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> Compute:
    """Return the function from weights to the average precision: the mean precision at each rise of the recall."""
    ranking = _Ranking.of(scores, positive, join_positives=False)

    def compute(weights: Floats) -> Values:
        yes, no = ranking.sums(weights)
        total = yes[:, 1:] + no[:, 1:]
        precision = np.divide(yes[:, 1:], total, out=np.zeros_like(total), where=total > 0)
        with np.errstate(invalid="ignore"):
            found: Values = (np.diff(yes, axis=1) * precision).sum(axis=1) / yes[:, -1]
        return found

    return compute


def _macro(make: Callable[..., Compute]) -> Callable[[Case], Compute | None]:
    def of(case: Case) -> Compute | None:
        return _mean_over([make(case.probabilities[:, one], case.outputs.targets == one) for one in case.ranked()])

    return of


def _of_positive(make: Callable[..., Compute], **settings: Any) -> Callable[[Case], Compute | None]:
    def of(case: Case) -> Compute | None:
        positive = case.is_positive()
        return None if positive is None else make(case.probabilities[:, case.positive], positive, **settings)

    return of


def _operating_point(threshold: str, of_positives: bool) -> Callable[[Case], Compute | None]:
    def of(case: Case) -> Compute | None:
        if case.positive is None or case.thresholds is None:
            return None
        among = (case.outputs.targets == case.positive) == of_positives
        if not among.any():
            return None
        called = case.probabilities[:, case.positive] >= getattr(case.thresholds, threshold)
        return _weighted_mean(called == of_positives, among)

    return of


_AT = f"{100 * FIXED:.0f} %"

METRICS: Mapping[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("recall", "macro-average recall, %", _recall),
        Metric("accuracy", "accuracy, %", _accuracy),
        Metric("auroc", "AUROC, mean over classes, %", _macro(roc_area)),
        Metric("auroc_positive", "AUROC of {positive}, %", _of_positive(roc_area)),
        Metric(
            "partial_auroc_positive",
            f"AUROC of {{positive}} above a sensitivity of {100 * SENSITIVITY_FLOOR:.0f} %, share of the largest, %",
            _of_positive(roc_area, floor=SENSITIVITY_FLOOR),
        ),
        Metric("average_precision", "average precision, mean over classes, %", _macro(average_precision)),
        Metric("average_precision_positive", "average precision of {positive}, %", _of_positive(average_precision)),
        Metric(
            "sensitivity",
            f"sensitivity for {{positive}}, threshold of {_AT} specificity on validation images, %",
            _operating_point("at_specificity", True),
        ),
        Metric(
            "specificity_there",
            f"specificity for {{positive}} at the threshold of {_AT} specificity on validation images, %",
            _operating_point("at_specificity", False),
        ),
        Metric(
            "specificity",
            f"specificity for {{positive}}, threshold of {_AT} sensitivity on validation images, %",
            _operating_point("at_sensitivity", False),
        ),
        Metric(
            "sensitivity_there",
            f"sensitivity for {{positive}} at the threshold of {_AT} sensitivity on validation images, %",
            _operating_point("at_sensitivity", True),
        ),
        Metric("brier", "Brier score (0 to 2)", _brier, higher_is_better=False, scale=1),
        Metric("calibration_error", "expected calibration error, %", _calibration_error, higher_is_better=False),
    )
}


def statistic(metric: Metric, case: Case, rows: Indices) -> Statistic | None:
    """Return ``metric`` of a domain as a statistic of the images ``rows``, those of ``case``; None if undefined."""
    compute = metric.of(case)
    return None if compute is None else Statistic(rows, compute)
