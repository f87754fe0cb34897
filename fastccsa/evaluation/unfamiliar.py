"""Scores that say how familiar an image is to a model: high for images like those of its training.

None of them needs more than the logits. Whether they tell a domain that was never seen from the training domains is
measured by the area under the ROC curve: 50 % tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from fastccsa.evaluation.outputs import Outputs

Values = npt.NDArray[np.float64]


def energy(outputs: Outputs) -> Values:
    """Return the negative energy, the logarithm of the sum of the exponentials of the logits, [n].

    Liu et al., Energy-based out-of-distribution detection, NeurIPS 2020.
    """
    found: Values = logsumexp(outputs.logits.astype(np.float64), axis=1)
    return found


def largest_logit(outputs: Outputs) -> Values:
    """Return the largest logit, [n] (Hendrycks et al., Scaling out-of-distribution detection, ICML 2022)."""
    return outputs.logits.max(axis=1).astype(np.float64)


def confidence(outputs: Outputs) -> Values:
    """Return the probability of the predicted class, [n].

    Hendrycks and Gimpel, A baseline for detecting misclassified and out-of-distribution examples, ICLR 2017.
    """
    found: Values = outputs.probabilities.max(axis=1)
    return found


FAMILIARITY: Mapping[str, Callable[[Outputs], Values]] = {
    "energy": energy,
    "largest_logit": largest_logit,
    "confidence": confidence,
}
