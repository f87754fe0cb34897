"""Values chosen on validation images: they keep their promises there, and on new images like them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import log_loss

from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.tuning import Tuning, scale


def outputs_of(targets: np.ndarray, logits: np.ndarray) -> Outputs:
    n = len(targets)
    zeros, features = np.zeros(n, np.int64), np.zeros((n, 1), np.float16)
    classes = tuple("abcdefg"[: logits.shape[1]])
    return Outputs(targets, zeros, zeros, logits.astype(np.float32), features, classes, ("HAM",), "validation")


def example(n: int = 200, digits: int = 6, seed: int = 0, sharpness: float = 1.0) -> Outputs:
    random = np.random.default_rng(seed)
    targets = random.choice(3, n, p=[0.6, 0.25, 0.15])
    return outputs_of(targets, (sharpness * (random.normal(size=(n, 3)) + 1.5 * np.eye(3)[targets])).round(digits))


@pytest.mark.parametrize(("seed", "digits"), [(0, 6), (1, 1), (2, 0)])
def test_thresholds_are_the_best_that_keep_their_promise(seed: int, digits: int) -> None:
    """No other threshold gives more of the other rate: every score is tried."""
    outputs = example(200, digits, seed)
    chosen = Tuning.choose(outputs, 1)
    assert chosen.at_specificity is not None
    assert chosen.at_sensitivity is not None
    scores, truth = outputs.probabilities[:, 1], outputs.targets == 1
    rates = [((scores[truth] >= t).mean(), (scores[~truth] < t).mean()) for t in [*np.unique(scores), 1.1]]
    sensitivity, specificity = (scores[truth] >= chosen.at_specificity), (scores[~truth] < chosen.at_specificity)
    assert specificity.mean() >= 0.9
    assert sensitivity.mean() == max(one for one, two in rates if two >= 0.9)
    sensitivity, specificity = (scores[truth] >= chosen.at_sensitivity), (scores[~truth] < chosen.at_sensitivity)
    assert sensitivity.mean() >= 0.9
    assert specificity.mean() == max(two for one, two in rates if one >= 0.9)


def test_no_thresholds_without_positive_and_negative_images() -> None:
    outputs = example()
    for part, positive in ((outputs.targets != 1, 1), (outputs.targets == 1, 1), (outputs.targets >= 0, None)):
        chosen = Tuning.choose(outputs.take(part), positive)
        assert (chosen.at_specificity, chosen.at_sensitivity) == (None, None)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 5.0])
def test_the_temperature_has_the_lowest_cross_entropy(sharpness: float) -> None:
    outputs = example(sharpness=sharpness)
    chosen = Tuning.choose(outputs, None).temperature
    tried = np.geomspace(0.05, 20, 400)
    losses = [log_loss(outputs.targets, scale(outputs.logits, t), labels=range(3)) for t in tried]
    best = log_loss(outputs.targets, scale(outputs.logits, chosen), labels=range(3))
    assert best <= min(losses) + 1e-6
    # A network that is sharper by a factor needs a temperature that is higher by it.
    assert chosen == pytest.approx(sharpness * Tuning.choose(example(), None).temperature, rel=0.01)


def test_sets_hold_the_truth_of_new_images_as_often_as_promised() -> None:
    """Over many validation sets of 49 images, whose rank 50 * 0.1 is a whole number, the mean coverage is 90 %."""
    random = np.random.default_rng(0)
    coverages = []
    for seed in range(400):
        both = example(49 + 200, seed=seed + 10)
        order = random.permutation(len(both))
        chosen, new = Tuning.choose(both.take(order[:49]), None), both.take(order[49:])
        held = new.probabilities[np.arange(200), new.targets] >= chosen.in_set
        coverages.append(held.mean())
    # The coverage of one set varies as Beta(45, 5): its standard deviation is 0.042, and that of 200 new images 0.021.
    assert np.mean(coverages) == pytest.approx(0.9, abs=4 * np.hypot(0.042, 0.021) / np.sqrt(400))


def test_too_few_images_promise_every_class() -> None:
    assert Tuning.choose(example(8), None).in_set == 0
    assert Tuning.choose(example(9), None).in_set > 0


def test_the_share_of_answered_images() -> None:
    for n in (10, 17, 200):
        outputs = example(n)
        confidence = outputs.probabilities.max(axis=1)
        answered = confidence >= Tuning.choose(outputs, None).certain
        assert answered.sum() == np.ceil(0.8 * n)
