"""Net benefit against counts by scikit-learn, and against dcurves if it is installed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import confusion_matrix

from fastccsa.evaluation.metrics import METRICS, Case, Metric, find_metric
from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.tuning import Tuning
from fastccsa.system.errors import InputError

TEMPERATURE = 1.7
TUNING = Tuning(at_specificity=None, at_sensitivity=None, temperature=TEMPERATURE, in_set=0.25, certain=0.6)
PERCENTS = (2.5, 5, 10, 20, 50, 90)
TOLERANCE = 600 * 2**-24 * 9  # of test_metrics.py, times the largest value of an image, at 90 %


@pytest.fixture(scope="module")
def outputs() -> Outputs:
    random = np.random.default_rng(0)
    targets = random.choice(3, 400, p=[0.7, 0.2, 0.1])
    logits = (random.normal(size=(400, 3)) + 1.5 * np.eye(3)[targets]).round(1).astype(np.float32)
    zeros, features = np.zeros(400, np.int64), np.zeros((400, 1), np.float16)
    return Outputs(targets, zeros, zeros, logits, features, ("nv", "mel", "bcc"), ("HAM",), "test")


def value(metric: Metric, outputs: Outputs, weights: np.ndarray) -> float:
    compute = metric.of(Case(outputs, 1, TUNING))
    assert compute is not None
    return float(compute(weights[None].astype(np.float32))[0])


def by_counts(outputs: Outputs, called: np.ndarray, threshold: float, weights: np.ndarray) -> float:
    (_, false), (_, true) = confusion_matrix(
        outputs.targets == 1, called, labels=[False, True], sample_weight=weights
    ).tolist()
    return (true - false * threshold / (1 - threshold)) / weights.sum()


@pytest.mark.parametrize("percent", PERCENTS)
def test_net_benefit_by_counts(outputs: Outputs, percent: float) -> None:
    """At the temperature of the validation images; the weights are those of a bootstrap sample."""
    risk = softmax(outputs.logits.astype(np.float64) / TEMPERATURE, axis=1)[:, 1]
    metric, gain = find_metric(f"net_benefit_{percent}"), find_metric(f"net_gain_{percent}")
    for seed in range(3):
        weights = np.random.default_rng(seed).poisson(1.0, 400).astype(float)
        threshold = percent / 100
        expected = by_counts(outputs, risk >= threshold, threshold, weights)
        always = by_counts(outputs, np.ones(400, bool), threshold, weights)
        assert value(metric, outputs, weights) == pytest.approx(expected, abs=TOLERANCE)
        assert [value(each, outputs, weights) for each in metric.beside] == pytest.approx([always, 0], abs=TOLERANCE)
        assert value(gain, outputs, weights) == pytest.approx(expected - max(always, 0), abs=2 * TOLERANCE)


def test_net_benefit_by_dcurves(outputs: Outputs) -> None:
    dcurves = pytest.importorskip("dcurves", reason="dcurves is not installed; scikit-learn's counts are compared")
    risk = softmax(outputs.logits.astype(np.float64) / TEMPERATURE, axis=1)[:, 1]
    table = pd.DataFrame({"case": (outputs.targets == 1).astype(int), "risk": risk})
    found = dcurves.dca(
        data=table, outcome="case", modelnames=["risk"], thresholds=np.array([p / 100 for p in PERCENTS])
    )
    ones = np.ones(400)
    for percent in PERCENTS:
        metric = find_metric(f"net_benefit_{percent}")
        shown = found[np.isclose(found["threshold"], percent / 100)].set_index("model")["net_benefit"]
        assert value(metric, outputs, ones) == pytest.approx(shown["risk"], abs=TOLERANCE)
        always, never = (value(each, outputs, ones) for each in metric.beside)
        assert always == pytest.approx(shown["all"], abs=TOLERANCE)
        assert never == shown["none"] == 0


def test_acting_on_a_perfect_model_is_worth_the_prevalence(outputs: Outputs) -> None:
    perfect = Outputs(
        outputs.targets, outputs.domains, outputs.rows, 50 * np.eye(3, dtype=np.float32)[outputs.targets],
        outputs.features, outputs.classes, outputs.domain_names, "test",
    )  # fmt: skip
    prevalence = float((outputs.targets == 1).mean())
    assert value(METRICS["net_benefit_10"], perfect, np.ones(400)) == pytest.approx(prevalence, abs=1e-5)


def test_without_validation_images_there_are_no_calibrated_risks(outputs: Outputs) -> None:
    assert METRICS["net_benefit_10"].of(Case(outputs, 1, None)) is None
    assert METRICS["net_gain_10"].of(Case(outputs, None, TUNING)) is None


@pytest.mark.parametrize("key", ["net_benefit_0", "net_benefit_100", "net_gain_250"])
def test_a_risk_is_between_none_and_certainty(key: str) -> None:
    with pytest.raises(InputError, match="needs a risk between 0 and 100 %"):
        find_metric(key)
    with pytest.raises(InputError, match="'net_benefit_x' is not among recall, "):
        find_metric("net_benefit_x")
