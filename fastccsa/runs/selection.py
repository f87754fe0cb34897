"""Which epoch of a run is selected by its validation recalls.

``paper`` is the paper's rule: the highest macro-average recall, averaged over the training domains. Few validation
images make this mean noisy, and the highest of many noisy means is often just a lucky one. ``informative`` weights each
domain by how precisely its validation images measure the recall, and takes the latest epoch within one standard error
of the highest (the one-standard-error rule of Breiman et al., *Classification and Regression Trees*, 1984).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

SelectionRule = Literal["informative", "paper"]
ORACLE = "oracle (cheats)"  # name of the rule that looks at the domains left out; no run selects by it


@dataclass(frozen=True)
class Criterion:
    """The weighted mean of the domains' validation recalls that a rule selects by, and the rule's choice.

    Attributes:
        weights: relative weight of each training domain.
        error: an upper bound of the mean's standard error. The latest epoch whose mean is at most this much below the
            highest one is selected; None selects the first epoch with the highest mean.
    """

    weights: Mapping[str, float]
    error: float | None = None

    def mean(self, recalls: Mapping[str, float]) -> float:
        """Return the weighted mean of ``recalls``, the macro-average recall of each training domain, in [0, 1]."""
        return float(np.average(list(recalls.values()), weights=[self.weights[name] for name in recalls]))

    def select(self, means: Sequence[float]) -> int:
        """Return the number, from 1, of the epoch to select, from the means of all epochs so far (at least one).

        An epoch that is not selected when it ends is never selected later, so that only the model of the epoch selected
        last has to be kept: the highest mean never falls.
        """
        highest = max(means)
        if self.error is None:
            return means.index(highest) + 1
        return max(epoch for epoch, mean in enumerate(means, start=1) if mean >= highest - self.error)


def oracle(history: Sequence[Mapping[str, Any]]) -> tuple[int, float] | None:
    """Return the epoch, from 1, with the highest mean recall on the validation images of the domains left out.

    Such a choice is no fair one: it looks at the domains that the run is tested on.

    Args:
        history: the records of all epochs, at least one.

    Returns:
        The epoch and its recall; None if a record does not have these recalls.
    """
    recalls = [record.get("unseen") for record in history]
    if not all(recalls):
        return None
    means = [float(np.mean(list(each.values()))) for each in recalls if each]
    return means.index(max(means)) + 1, max(means)


def criteria(counts: Mapping[str, Sequence[int]]) -> dict[SelectionRule, Criterion]:
    """Return the criterion of each rule.

    Args:
        counts: number of validation images of each class, by training domain; each domain has at least one image.
    """
    information = {name: _information(images) for name, images in counts.items()}
    # With a single class, a constant answer scores 100 %.
    telling = {name: _classes(counts[name]) > 1 for name in counts}
    if any(telling.values()):
        information = {name: value if telling[name] else 0.0 for name, value in information.items()}
    error = 1 / math.sqrt(sum(information.values()))
    return {"informative": Criterion(information, error), "paper": Criterion(dict.fromkeys(counts, 1.0))}


def _classes(images: Sequence[int]) -> int:
    return sum(count > 0 for count in images)


def _information(images: Sequence[int]) -> float:
    """Return the inverse of the highest possible variance of a domain's macro-average recall.

    A class's recall is a share of n images, with variance at most 1/(4 n); the macro-average is the mean over the
    classes that occur.
    """
    variance = sum(1 / (4 * count) for count in images if count) / _classes(images) ** 2
    return 1 / variance
