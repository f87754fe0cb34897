"""What is chosen on a run's validation images, to be judged on test images: thresholds, a temperature, sets of answers.

None of it can be chosen on the images that judge it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax

from fastccsa.evaluation.outputs import Outputs

FIXED = 0.9  # the specificity (sensitivity) at which the sensitivity (specificity) is judged
COVERAGE = 0.9  # of the sets of answers
ANSWERED = 0.8  # share of the images that are answered, and not referred to a person
_TEMPERATURES = (0.02, 50.0)


@dataclass(frozen=True)
class Tuning:
    """Values chosen on validation images.

    Attributes:
        at_specificity: the lowest threshold of the positive class's probability with a specificity of at least `FIXED`;
            None without positive or without negative images.
        at_sensitivity: the highest one with a sensitivity of at least `FIXED`; None likewise.
        temperature: divisor of the logits with the lowest cross-entropy (Guo et al., On calibration of modern neural
            networks, ICML 2017).
        in_set: the least probability of a class in the set of answers, such that the sets contain the true class of
            new images like these with a probability of at least `COVERAGE` (split conformal prediction; Sadinle et
            al., Least ambiguous set-valued classifiers with bounded error levels, JASA 2019). It is 0, so that sets
            hold every class, where there are too few images to promise less.
        certain: the least confidence at which an image is answered: `ANSWERED` of these images are.
    """

    at_specificity: float | None
    at_sensitivity: float | None
    temperature: float
    in_set: float
    certain: float

    @staticmethod
    def choose(outputs: Outputs, positive: int | None) -> Tuning:
        """Choose the values on validation images, at least one.

        Args:
            outputs: the outputs on them.
            positive: class that is told from the rest; None if there is none.
        """
        probabilities = outputs.probabilities
        low, high = (None, None)
        if positive is not None:
            scores, is_positive = probabilities[:, positive], outputs.targets == positive
            low, high = _thresholds(scores[is_positive], scores[~is_positive])
        n = len(outputs)
        of_truth = np.sort(probabilities[np.arange(n), outputs.targets])
        # The rank that makes new images exchangeable with these covered, counted from the lowest probability.
        rank = int(np.floor((n + 1) * (1 - COVERAGE) + 1e-9))
        confidence = np.sort(probabilities.max(axis=1))
        return Tuning(
            at_specificity=low,
            at_sensitivity=high,
            temperature=_temperature(outputs.logits.astype(np.float64), outputs.targets),
            in_set=float(of_truth[rank - 1]) if rank else 0.0,
            certain=float(confidence[n - int(np.ceil(ANSWERED * n - 1e-9))]),
        )


def scale(logits: npt.NDArray[np.floating], temperature: float) -> npt.NDArray[np.float64]:
    """Return the probabilities of logits [n, C] at a temperature."""
    found: npt.NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return found


def _thresholds(yes: npt.NDArray[np.float64], no: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the thresholds at a specificity and at a sensitivity, from the scores of positives and negatives."""
    if not len(yes) or not len(no):
        return None, None
    yes, no = np.sort(yes), np.sort(no)
    # At most this many negatives may reach the threshold, which lies just above the next one.
    allowed = int(np.floor(len(no) * (1 - FIXED) + 1e-9))
    needed = int(np.ceil(len(yes) * FIXED - 1e-9))
    return float(np.nextafter(no[len(no) - 1 - allowed], np.inf)), float(yes[len(yes) - needed])


def _temperature(logits: npt.NDArray[np.float64], targets: npt.NDArray[np.int64]) -> float:
    of_truth = logits[np.arange(len(targets)), targets]

    def loss(log_temperature: float) -> float:
        inverse = np.exp(-log_temperature)
        return float(np.mean(logsumexp(logits * inverse, axis=1) - of_truth * inverse))

    low, high = np.log(_TEMPERATURES)
    return float(np.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x))
