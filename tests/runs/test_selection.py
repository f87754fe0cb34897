"""The rules of selection compared with numbers computed by hand, and with simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from fastccsa.runs.selection import Criterion, criteria

# The variance is at most (1/64 + 1/16 + 1/4) / 9 = 7/192 for HAM, and (1/32 + 1/8) / 4 = 5/128 for DMF.
COUNTS = {"HAM": [16, 4, 1], "SON": [0, 28, 0], "DMF": [8, 0, 2]}


def test_weights_by_hand_without_the_domain_of_one_class() -> None:
    criterion = criteria(COUNTS)["informative"]
    assert criterion.weights == {"HAM": pytest.approx(192 / 7), "SON": 0, "DMF": pytest.approx(128 / 5)}
    assert criterion.error == pytest.approx(1 / math.sqrt(192 / 7 + 128 / 5))
    expected = (192 / 7 * 0.5 + 128 / 5 * 0.25) / (192 / 7 + 128 / 5)
    assert criterion.mean({"DMF": 0.25, "HAM": 0.5, "SON": 1.0}) == pytest.approx(expected)


def test_domains_of_one_class_are_weighted_by_their_images_if_there_is_no_other() -> None:
    criterion = criteria({"HAM": [7, 0], "SON": [0, 2]})["informative"]
    assert criterion.weights == {"HAM": pytest.approx(28), "SON": pytest.approx(8)}
    assert criterion.error == pytest.approx(1 / 6)


def test_the_paper_s_criterion_is_the_plain_mean() -> None:
    criterion = criteria(COUNTS)["paper"]
    recalls = {"HAM": 0.1, "SON": 0.7, "DMF": 0.3}
    assert criterion.mean(recalls) == np.mean([0.1, 0.7, 0.3])
    assert criterion.error is None


def test_the_error_bounds_the_spread_of_a_model_that_guesses() -> None:
    """A recall of one half has the largest variance, so that the bound is reached."""
    counts = {"HAM": [12, 6, 3], "DMF": [10, 0, 4]}
    criterion, random = criteria(counts)["informative"], np.random.default_rng(0)
    means = []
    for _ in range(2000):
        recalls = {}
        for name, images in counts.items():
            targets = np.repeat(np.arange(3), images)
            wrong = np.array([2, 0, 0])[targets]  # a class that occurs in the domain
            answers = np.where(random.random(len(targets)) < 0.5, targets, wrong)
            recalls[name] = balanced_accuracy_score(targets, answers)
        means.append(criterion.mean(recalls))
    assert np.std(means) == pytest.approx(criterion.error, rel=0.06)


@pytest.mark.parametrize(
    ("means", "error", "epoch"),
    [
        ([0.4], 0.1, 1),
        ([0.50, 0.45, 0.42], 0.1, 3),  # an early peak within noise
        ([0.50, 0.30, 0.38], 0.1, 1),  # an early peak beyond noise
        ([0.50, 0.30, 0.45, 0.35], 0.1, 3),
        ([0.2, 0.3, 0.5, 0.45, 0.3], 0.1, 4),
        ([0.5, 0.5, 0.5], 0.1, 3),
        ([0.5, 0.25, 0.25], 0.25, 3),  # exactly one standard error lower
        ([0.5, 0.45, 0.5, 0.45], None, 1),  # the paper's rule takes the first of equal epochs
        ([0.4, 0.5, 0.45], None, 2),
    ],
)
def test_the_selected_epoch(means, error, epoch) -> None:
    assert Criterion({"HAM": 1.0}, error).select(means) == epoch


def test_keeping_only_the_model_of_the_epoch_selected_last_is_enough() -> None:
    """Saving at every epoch within one standard error of the highest so far ends with the model of the choice."""
    random, differing = np.random.default_rng(0), 0
    for _ in range(300):
        means = random.random(12).tolist()
        criterion, saved, highest = Criterion({"HAM": 1.0}, 0.2), 0, -1.0
        for epoch, mean in enumerate(means, start=1):
            highest = max(highest, mean)
            if mean >= highest - 0.2:
                saved = epoch
            assert criterion.select(means[:epoch]) == saved
        differing += saved != 1 + int(np.argmax(means))
    assert differing > 50
