"""Metrics of a model on weighted test images: the values that tables show, on the images and on bootstrap samples.

Each metric is defined once, for weighted images: the weights of a sample say how often each image occurs in it. Weights
of one give the value that scikit-learn gives.

Classes without test images in a domain are left out of its means, as in scikit-learn's balanced accuracy (which the
macro-average recall equals). A ranking metric of one class against the rest needs images of the class and of others,
so that a domain with a single class has none. A threshold is chosen on validation images and judged on test images.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fastccsa.evaluation.calibration import BINS
from fastccsa.evaluation.decisions import THRESHOLDS, worth
from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.rankings import average_precision, risk_area, roc_area
from fastccsa.evaluation.resampling import Floats, Indices, Statistic
from fastccsa.evaluation.tuning import ANSWERED, COVERAGE, FIXED, Tuning, scale
from fastccsa.evaluation.unfamiliar import FAMILIARITY
from fastccsa.system.errors import InputError

POSITIVE = ("mel", "melanoma")  # names of the class that is told from the rest, unless another one is chosen
SENSITIVITY_FLOOR = 0.8  # of the partial area, as in the ISIC 2024 challenge

Values = npt.NDArray[np.floating]
Compute = Callable[[Floats], Values]


@dataclass(frozen=True, eq=False)
class Case:
    """What the metrics of one domain are computed from.

    Attributes:
        outputs: the outputs on the domain's test images.
        positive: class that is told from the rest, such as melanoma; None if there is none.
        tuning: what was chosen on validation images; None without their outputs.
        unseen: for the metrics that tell a domain from those that the model was trained on: which of the images are of
            that domain, [n]; the others are of all training domains. None for any other metric.
    """

    outputs: Outputs
    positive: int | None = None
    tuning: Tuning | None = None
    unseen: npt.NDArray[np.bool_] | None = None

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
        of_unseen: whether it tells the images of a domain that was never seen from those of the training domains.
        beside: what the metric is compared with in its table, and does not depend on a model: metrics by title.
    """

    key: str
    title: str
    of: Callable[[Case], Compute | None]
    higher_is_better: bool = True
    scale: float = 100
    of_unseen: bool = False
    beside: tuple[Metric, ...] = ()

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
    return _calibration_error_of(case, case.probabilities)


def _calibration_error_of(case: Case, probabilities: npt.NDArray[np.float64]) -> Compute:
    confidence = probabilities.max(axis=1)
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.zeros((len(place), BINS + 1), np.float32)
    gaps[np.arange(len(place)), place] = confidence - case.right
    gaps[:, BINS] = 1

    def compute(weights: Floats) -> Values:
        sums = weights @ gaps
        found: Values = np.abs(sums[:, :BINS]).sum(axis=1) / sums[:, BINS]
        return found

    return compute


def _risk_area(case: Case) -> Compute:
    return risk_area(case.probabilities.max(axis=1), ~case.right)


def _tuned(make: Callable[[Case, Tuning], Compute | None]) -> Callable[[Case], Compute | None]:
    def of(case: Case) -> Compute | None:
        return None if case.tuning is None else make(case, case.tuning)

    return of


def _scaled_calibration_error(case: Case, tuning: Tuning) -> Compute:
    return _calibration_error_of(case, scale(case.outputs.logits, tuning.temperature))


def _is_covered(case: Case, tuning: Tuning) -> npt.NDArray[np.bool_]:
    targets = case.outputs.targets
    return case.probabilities[np.arange(len(targets)), targets] >= tuning.in_set


def _coverage(case: Case, tuning: Tuning) -> Compute:
    return _weighted_mean(_is_covered(case, tuning))


def _macro_coverage(case: Case, tuning: Tuning) -> Compute | None:
    covered = _is_covered(case, tuning)
    return _mean_over([_weighted_mean(covered, case.outputs.targets == one) for one in case.present])


def _set_size(case: Case, tuning: Tuning) -> Compute:
    return _weighted_mean((case.probabilities >= tuning.in_set).sum(axis=1))


def _answered(case: Case, tuning: Tuning) -> Compute:
    return _weighted_mean(case.probabilities.max(axis=1) >= tuning.certain)


def _accuracy_of_answered(case: Case, tuning: Tuning) -> Compute | None:
    answered = case.probabilities.max(axis=1) >= tuning.certain
    return _weighted_mean(case.right, answered) if answered.any() else None


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
        limit = None if case.tuning is None else getattr(case.tuning, threshold)
        if case.positive is None or limit is None:
            return None
        among = (case.outputs.targets == case.positive) == of_positives
        if not among.any():
            return None
        called = case.probabilities[:, case.positive] >= limit
        return _weighted_mean(called == of_positives, among)

    return of


def _net_benefit(threshold: float) -> Callable[[Case], Compute | None]:
    def of(case: Case) -> Compute | None:
        if case.positive is None or case.tuning is None:
            return None
        risk = scale(case.outputs.logits, case.tuning.temperature)[:, case.positive]
        return _weighted_mean(worth(risk >= threshold, case.outputs.targets == case.positive, threshold))

    return of


def _act_always(threshold: float) -> Callable[[Case], Compute | None]:
    def of(case: Case) -> Compute | None:
        if case.positive is None:
            return None
        positive = case.outputs.targets == case.positive
        return _weighted_mean(worth(np.ones_like(positive), positive, threshold))

    return of


def _act_never(case: Case) -> Compute | None:
    return None if case.positive is None else _weighted_mean(np.zeros(len(case.outputs)))


def _net_gain(threshold: float) -> Callable[[Case], Compute | None]:
    """Return the net benefit minus that of acting always or never, whichever is worth more."""

    def of(case: Case) -> Compute | None:
        model, always = _net_benefit(threshold)(case), _act_always(threshold)(case)
        if model is None or always is None:
            return None
        return lambda weights: model(weights) - np.maximum(always(weights), 0)

    return of


def net_benefit(percent: float) -> tuple[Metric, Metric]:
    """Return the net benefit of acting from a risk in % on, and what it adds to acting always or never.

    Raises:
        InputError: the risk is not between 0 and 100.
    """
    threshold = percent / 100
    worth(np.ones(1, bool), np.ones(1, bool), threshold)  # checks it
    acting = f"acting from a risk of {{positive}} of {percent:g} % on, per 100 images"
    beside = (
        Metric(f"act_always_{percent:g}", "acting on all", _act_always(threshold)),
        Metric(f"act_never_{percent:g}", "acting on none", _act_never),
    )
    return (
        Metric(f"net_benefit_{percent:g}", f"net benefit of {acting}", _net_benefit(threshold), beside=beside),
        Metric(
            f"net_gain_{percent:g}",
            f"net benefit beyond that of acting on all or on none, {acting}",
            _net_gain(threshold),
        ),
    )


def _tells_unseen(familiarity: str) -> Callable[[Case], Compute | None]:
    def of(case: Case) -> Compute | None:
        if case.unseen is None or case.unseen.all() or not case.unseen.any():
            return None
        return roc_area(FAMILIARITY[familiarity](case.outputs), ~case.unseen)

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
        Metric(
            "calibration_error_scaled",
            "expected calibration error at the temperature of the validation images, %",
            _tuned(_scaled_calibration_error),
            higher_is_better=False,
        ),
        Metric(
            "coverage", f"sets of answers that hold the true class, {100 * COVERAGE:.0f} % wanted, %", _tuned(_coverage)
        ),
        Metric(
            "coverage_by_class",
            f"sets of answers that hold the true class, {100 * COVERAGE:.0f} % wanted, mean over classes, %",
            _tuned(_macro_coverage),
        ),
        Metric("set_size", "classes in a set of answers", _tuned(_set_size), higher_is_better=False, scale=1),
        Metric(
            "answered",
            f"images as certain as {100 * ANSWERED:.0f} % of the validation images, %",
            _tuned(_answered),
        ),
        Metric("accuracy_of_answered", "accuracy on those images, %", _tuned(_accuracy_of_answered)),
        Metric("risk_area", "area under the risk-coverage curve, %", _risk_area, higher_is_better=False),
        *(metric for threshold in THRESHOLDS for metric in net_benefit(100 * threshold)),
        *(
            Metric(
                f"unseen_by_{name}",
                f"AUROC of telling a domain never seen from the training domains by {name.replace('_', ' ')}, %",
                _tells_unseen(name),
                of_unseen=True,
            )
            for name in FAMILIARITY
        ),
    )
}
_ANY_RISK = re.compile(r"(net_benefit|net_gain)_(\d+(?:\.\d+)?)")


def find_metric(key: str) -> Metric:
    """Return a metric by its key: one of `METRICS`, or ``net_benefit_7.5`` or ``net_gain_7.5`` for any risk in %.

    Raises:
        InputError: there is no such metric.
    """
    found = _ANY_RISK.fullmatch(key)
    if key not in METRICS and found is not None:
        return net_benefit(float(found[2]))[found[1] == "net_gain"]
    if key not in METRICS:
        raise InputError(f"{key!r} is not among {', '.join(METRICS)}")
    return METRICS[key]


def usual_positive(classes: Sequence[str]) -> str | None:
    """Return the class that is told from the rest if none is chosen: melanoma; None if it is not among ``classes``."""
    return next((name for name in POSITIVE if name in classes), None)


def statistic(metric: Metric, case: Case, rows: Indices) -> Statistic | None:
    """Return ``metric`` of a domain as a statistic of the images ``rows``, those of ``case``; None if undefined."""
    compute = metric.of(case)
    return None if compute is None else Statistic(rows, compute)
