"""Metrics against scikit-learn, with and without weights, on ties, absent classes and single images."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from fastccsa.evaluation.metrics import METRICS, SENSITIVITY_FLOOR, Case
from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.rankings import average_precision, risk_area, roc_area
from fastccsa.evaluation.tuning import Tuning

CLASSES = ("nv", "mel", "bcc")
# Sums of at most 600 float32 terms of size 1, by blocks: 600 half units in the last place.
TOLERANCE = 600 * 2**-24


def outputs_of(targets, logits, classes=CLASSES) -> Outputs:
    n = len(targets)
    zeros = np.zeros(n, np.int64)
    targets, logits = np.asarray(targets, np.int64), np.asarray(logits, np.float32)
    return Outputs(targets, zeros, zeros, logits, np.zeros((n, 1), np.float16), classes, ("HAM",), "test")


def example(n: int = 300, digits: int = 1, seed: int = 0) -> Outputs:
    """Logits that are rounded, so that many scores are equal."""
    random = np.random.default_rng(seed)
    targets = random.choice(3, n, p=[0.7, 0.2, 0.1])
    return outputs_of(targets, (random.normal(size=(n, 3)) + np.eye(3)[targets]).round(digits))


def value(key: str, case: Case, weights: np.ndarray | None = None) -> float:
    compute = METRICS[key].of(case)
    assert compute is not None
    n = len(case.outputs)
    return float(compute((np.ones(n) if weights is None else weights)[None].astype(np.float32))[0])


def partial_area(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """As the ISIC 2024 challenge computes it: the partial AUROC of swapped classes, without McClish's correction."""
    span = 1 - SENSITIVITY_FLOOR
    scaled = sklearn_metrics.roc_auc_score(~truth, -scores, max_fpr=span, sample_weight=weights)
    low, high = span**2 / 2, span
    return (low + (high - low) * (2 * scaled - 1)) / span


def by_scikit_learn(key: str, case: Case, weights: np.ndarray) -> float:
    targets, p = case.outputs.targets, case.probabilities
    predictions, truth = p.argmax(1), targets == 1
    every = range(p.shape[1])
    roc, ap = sklearn_metrics.roc_auc_score, sklearn_metrics.average_precision_score
    if key == "recall":
        return float(sklearn_metrics.balanced_accuracy_score(targets, predictions, sample_weight=weights))
    if key == "accuracy":
        return float(sklearn_metrics.accuracy_score(targets, predictions, sample_weight=weights))
    if key == "auroc":
        return float(np.mean([roc(targets == one, p[:, one], sample_weight=weights) for one in every]))
    if key == "auroc_positive":
        return float(roc(truth, p[:, 1], sample_weight=weights))
    if key == "partial_auroc_positive":
        return partial_area(truth, p[:, 1], weights)
    if key == "average_precision":
        return float(np.mean([ap(targets == one, p[:, one], sample_weight=weights) for one in every]))
    if key == "average_precision_positive":
        return float(ap(truth, p[:, 1], sample_weight=weights))
    if key == "brier":
        return float(np.average(((p - np.eye(3)[targets]) ** 2).sum(1), weights=weights))
    confidence, right = p.max(1), predictions == targets
    if key == "risk_area":
        order = np.argsort(-confidence, kind="stable")
        answered, errors = np.cumsum(weights[order]), np.cumsum((weights * ~right)[order])
        last = np.append(np.diff(confidence[order]) != 0, True)  # of images with equal confidence
        answered, errors = answered[last], errors[last]
        risk = np.divide(errors, answered, out=np.zeros_like(errors), where=answered > 0)
        return float((np.diff(answered, prepend=0) * risk).sum() / answered[-1])
    assert key == "calibration_error"
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in pairwise(edges):
        here = (confidence >= low) & ((confidence < high) | (high == 1))
        total += abs((weights * (confidence - right))[here].sum())
    return float(total / weights.sum())


TUNING = Tuning(at_specificity=0.5, at_sensitivity=0.2, temperature=2.0, in_set=0.25, certain=0.6)
TUNED = {
    "sensitivity", "specificity_there", "specificity", "sensitivity_there", "calibration_error_scaled", "coverage",
    "coverage_by_class", "set_size", "answered", "accuracy_of_answered",
}  # fmt: skip
TUNED |= {f"{kind}_{percent}" for kind in ("net_benefit", "net_gain") for percent in (5, 10, 20, 50)}
UNSEEN = {"unseen_by_energy", "unseen_by_largest_logit", "unseen_by_confidence"}  # in test_unfamiliar.py
KEYS = [key for key in METRICS if key not in TUNED | UNSEEN]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("digits", [0, 1, 6])
def test_without_weights(key: str, digits: int) -> None:
    case = Case(example(digits=digits), positive=1)
    assert value(key, case) == pytest.approx(by_scikit_learn(key, case, np.ones(300)), abs=TOLERANCE)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("digits", [0, 1, 6])
def test_with_weights(key: str, digits: int) -> None:
    """Weights of a bootstrap sample, many of them 0."""
    case = Case(example(digits=digits), positive=1)
    for seed in range(5):
        weights = np.random.default_rng(seed).poisson(1.0, 300).astype(float)
        assert value(key, case, weights) == pytest.approx(by_scikit_learn(key, case, weights), abs=2 * TOLERANCE)


def test_a_weight_is_a_number_of_copies() -> None:
    outputs = example(80)
    times = np.random.default_rng(1).integers(0, 3, 80)
    copies = np.repeat(np.arange(80), times)
    copied, unseen = outputs.take(copies), np.arange(80) % 3 == 0
    for key in METRICS:
        one = value(key, Case(outputs, 1, TUNING, unseen), times.astype(float))
        assert one == pytest.approx(value(key, Case(copied, 1, TUNING, unseen[copies])), abs=2 * TOLERANCE), key


def test_a_class_without_images_does_not_count() -> None:
    outputs = example()
    case = Case(outputs.take(outputs.targets != 2), positive=1)
    targets, p = case.outputs.targets, case.probabilities
    roc = [sklearn_metrics.roc_auc_score(targets == one, p[:, one]) for one in (0, 1)]
    assert value("auroc", case) == pytest.approx(np.mean(roc), abs=TOLERANCE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of predicted classes without images
        expected = sklearn_metrics.balanced_accuracy_score(targets, p.argmax(1))
    assert value("recall", case) == pytest.approx(expected, abs=TOLERANCE)


def test_a_single_class_has_no_ranking() -> None:
    outputs = example()
    case = Case(outputs.take(outputs.targets == 1), positive=1, tuning=TUNING)
    ranking = {"auroc", "average_precision", "auroc_positive", "partial_auroc_positive", "average_precision_positive"}
    undefined = {key for key, metric in METRICS.items() if metric.of(case) is None}
    assert undefined == ranking | {"specificity", "specificity_there"} | UNSEEN


def test_one_image() -> None:
    case = Case(outputs_of([0], [[3.0, 0.0, 0.0]]), positive=1)
    p = np.exp(3) / (np.exp(3) + 2)
    assert [value("recall", case), value("accuracy", case)] == [1, 1]
    assert value("calibration_error", case) == pytest.approx(1 - p, abs=1e-6)
    assert value("brier", case) == pytest.approx((1 - p) ** 2 * 1.5, abs=1e-6)
    assert METRICS["auroc"].of(case) is None


def test_without_a_positive_class() -> None:
    case = Case(example(), positive=None, tuning=TUNING)
    undefined = {key for key, metric in METRICS.items() if metric.of(case) is None}
    assert undefined == {key for key, metric in METRICS.items() if "{positive}" in metric.title} | UNSEEN


def test_without_validation_images() -> None:
    case = Case(example(), positive=1)
    assert {key for key, metric in METRICS.items() if metric.of(case) is None} == TUNED | UNSEEN


def test_a_sample_without_a_class() -> None:
    """The class is left out of means; a metric of that class alone is not defined."""
    outputs = example()
    weights = (outputs.targets != 1).astype(float)
    case = Case(outputs, positive=1)
    assert np.isnan(value("auroc_positive", case, weights))
    assert np.isnan(value("average_precision_positive", case, weights))
    kept = outputs.take(outputs.targets != 1)
    assert value("recall", case, weights) == pytest.approx(value("recall", Case(kept)), abs=TOLERANCE)
    targets, p = kept.targets, kept.probabilities
    roc = [sklearn_metrics.roc_auc_score(targets == one, p[:, one]) for one in (0, 2)]
    assert value("auroc", case, weights) == pytest.approx(np.mean(roc), abs=TOLERANCE)


@pytest.mark.parametrize(
    ("truth", "scores", "area", "precision"),
    [
        ([1, 0], [0.9, 0.1], 1.0, 1.0),
        ([0, 1], [0.9, 0.1], 0.0, 0.5),
        ([1, 0, 1, 0], [0.5, 0.5, 0.5, 0.5], 0.5, 0.5),
        ([1, 1, 0, 0], [0.9, 0.5, 0.5, 0.1], 0.875, (1 + 2 / 3) / 2),
    ],
)
def test_small_rankings(truth: list[int], scores: list[float], area: float, precision: float) -> None:
    positive, given = np.array(truth, bool), np.array(scores)
    ones = np.ones((1, len(truth)), np.float32)
    assert roc_area(given, positive)(ones)[0] == pytest.approx(area, abs=1e-6)
    assert average_precision(given, positive)(ones)[0] == pytest.approx(precision, abs=1e-6)


def test_operating_points_are_judged_at_the_given_threshold() -> None:
    outputs = example()
    case = Case(outputs, 1, TUNING)
    scores, truth = outputs.probabilities[:, 1], outputs.targets == 1
    assert value("sensitivity", case) == pytest.approx((scores[truth] >= 0.5).mean(), abs=1e-6)
    assert value("specificity_there", case) == pytest.approx((scores[~truth] < 0.5).mean(), abs=1e-6)
    assert value("specificity", case) == pytest.approx((scores[~truth] < 0.2).mean(), abs=1e-6)
    assert value("sensitivity_there", case) == pytest.approx((scores[truth] >= 0.2).mean(), abs=1e-6)


def test_sets_of_answers() -> None:
    outputs = example()
    case, p = Case(outputs, 1, TUNING), outputs.probabilities
    held = p[np.arange(300), outputs.targets] >= 0.25
    assert value("coverage", case) == pytest.approx(held.mean(), abs=TOLERANCE)
    by_class = [held[outputs.targets == one].mean() for one in range(3)]
    assert value("coverage_by_class", case) == pytest.approx(np.mean(by_class), abs=TOLERANCE)
    assert value("set_size", case) == pytest.approx((p >= 0.25).sum(1).mean(), abs=TOLERANCE)


def test_answered_images() -> None:
    outputs = example()
    case, confidence = Case(outputs, 1, TUNING), outputs.probabilities.max(1)
    right = (outputs.predictions == outputs.targets)[confidence >= 0.6]
    assert value("answered", case) == pytest.approx((confidence >= 0.6).mean(), abs=TOLERANCE)
    assert value("accuracy_of_answered", case) == pytest.approx(right.mean(), abs=TOLERANCE)
    never = Case(outputs, 1, Tuning(None, None, 1.0, 0.0, 1.1))
    assert METRICS["accuracy_of_answered"].of(never) is None


def test_scaled_calibration_error() -> None:
    outputs = example()
    halved = outputs_of(outputs.targets, outputs.logits / 2)
    found = value("calibration_error_scaled", Case(outputs, 1, TUNING))
    assert found == pytest.approx(by_scikit_learn("calibration_error", Case(halved), np.ones(300)), abs=TOLERANCE)


def test_risk_area_by_hand() -> None:
    """The second most certain of three images is wrong: risks 0, 1/2 and 1/3."""
    found = risk_area(np.array([0.9, 0.8, 0.7]), np.array([False, True, False]))(np.ones((1, 3), np.float32))
    assert found[0] == pytest.approx((0 + 1 / 2 + 1 / 3) / 3, abs=1e-6)
