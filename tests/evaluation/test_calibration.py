from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from fastccsa.evaluation import Outputs
from fastccsa.evaluation.calibration import calibrate


def outputs_of(probabilities: np.ndarray, targets: np.ndarray) -> Outputs:
    n, classes = probabilities.shape
    return Outputs(
        targets=targets,
        domains=np.zeros(n, np.int64),
        rows=np.arange(n),
        logits=np.log(probabilities).astype(np.float32),
        features=np.zeros((n, 2), np.float16),
        classes=tuple("abcdefg"[:classes]),
        domain_names=("HAM",),
        split="test",
    )


def test_by_hand_on_two_bins() -> None:
    # Two images at 0.9, one of them correct; two at 0.6 (another of the 5 bins), both correct.
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6]])
    found = calibrate(outputs_of(probabilities, np.array([0, 1, 0, 1])), bins=5)
    assert found.counts.tolist() == [0, 0, 0, 2, 2]
    np.testing.assert_allclose(found.confidence[3:], [0.6, 0.9], rtol=1e-6)
    np.testing.assert_allclose(found.accuracy[3:], [1.0, 0.5])
    assert np.isnan(found.accuracy[:3]).all()
    assert found.error == pytest.approx((2 * 0.4 + 2 * 0.4) / 4)


def test_the_curve_equals_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(3), 500)
    outputs = outputs_of(probabilities, random.integers(0, 3, 500))
    found = calibrate(outputs, bins=15)
    right = outputs.predictions == outputs.targets
    accuracy, confidence = calibration_curve(right, outputs.probabilities.max(axis=1), n_bins=15)
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)
    gaps = np.abs(accuracy - confidence)
    assert found.error == pytest.approx((gaps * found.counts[filled]).sum() / 500)


def test_a_confident_and_correct_model_has_no_calibration_error() -> None:
    outputs = outputs_of(np.full((3, 2), 0.5), np.array([0, 1, 1]))
    sure = replace(outputs, logits=np.array([[99, 0], [0, 99], [0, 99]], np.float32))
    assert calibrate(sure).error == pytest.approx(0)
    assert calibrate(sure).counts[-1] == 3
