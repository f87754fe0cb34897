"""Whether a model's confidence matches its accuracy: reliability and expected calibration error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fastccsa.evaluation.outputs import Outputs

BINS = 15  # Guo et al., "On calibration of modern neural networks", ICML 2017

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Top-class confidence against accuracy in bins of equal width.

    Attributes:
        counts: images in each bin, int64 [bins].
        confidence: mean probability of the predicted class in each bin, [bins]; NaN in an empty bin.
        accuracy: share of correct predictions in each bin, [bins]; NaN in an empty bin.
        error: expected calibration error, in [0, 1]: the mean over images of |accuracy - confidence| of their bin.
    """

    counts: npt.NDArray[np.int64]
    confidence: Values
    accuracy: Values
    error: float


def calibrate(outputs: Outputs, bins: int = BINS) -> Calibration:
    """Compare the confidence of ``outputs`` (at least one image) with their accuracy."""
    probabilities = outputs.probabilities
    confidence = probabilities.max(axis=1)
    correct = (outputs.predictions == outputs.targets).astype(np.float64)
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    counts = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidence, correct)]
    error = np.abs(sums[0] - sums[1]).sum() / len(outputs)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        return Calibration(counts, sums[0] / counts, sums[1] / counts, float(error))
