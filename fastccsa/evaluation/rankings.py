"""Areas under the curves of rankings of weighted images, one class against the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastccsa.evaluation.resampling import Floats, Indices

Values = npt.NDArray[np.floating]
Compute = Callable[[Floats], Values]


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Images in order of falling scores, in groups; a group is a straight piece of the curves that are drawn from it.

    Images of equal scores form a group. Neighbouring groups of one class are joined where a metric has no point between
    them; this makes rare positives cheap.

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
    def of(
        scores: npt.NDArray[np.float64],
        positive: npt.NDArray[np.bool_],
        join_positives: bool,
        join_negatives: bool = True,
    ) -> _Ranking:
        order = np.argsort(-scores, kind="stable")
        new = np.append(True, np.diff(scores[order]) != 0)
        group = np.cumsum(new) - 1
        yes = np.bincount(group, weights=positive[order]) > 0
        no = np.bincount(group, weights=~positive[order]) > 0
        joins = np.zeros(len(yes) - 1, bool)
        if join_negatives:
            joins |= ~yes[1:] & ~yes[:-1]
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


def risk_area(confidence: npt.NDArray[np.float64], wrong: npt.NDArray[np.bool_]) -> Compute:
    """Return the function from weights to the area under the risk-coverage curve, in [0, 1]; lower is better.

    The curve gives the share of wrong answers among the most certain images, for each share of images that are
    answered (El-Yaniv and Wiener, On the foundations of noise-free selective classification, JMLR 2010). Images of
    equal confidence are answered together.
    """
    ranking = _Ranking.of(confidence, wrong, join_positives=False, join_negatives=False)

    def compute(weights: Floats) -> Values:
        errors, right = ranking.sums(weights)
        answered = errors + right
        risk = np.divide(errors[:, 1:], answered[:, 1:], out=np.zeros_like(errors[:, 1:]), where=answered[:, 1:] > 0)
        found: Values = (np.diff(answered, axis=1) * risk).sum(axis=1) / answered[:, -1]
        return found

    return compute
