"""Decision curves: what acting on a model is worth, compared with acting on everyone or on no one.

Whoever acts from a risk t on accepts (1 - t) / t false alarms for each case that is found. The net benefit counts cases
minus false alarms in this currency, per image: (true positives - false positives t / (1 - t)) / n. Acting on no one is
worth 0; a model that is not worth more than acting on everyone and on no one is of no use at this risk (Vickers and
Elkin, Decision curve analysis, Medical Decision Making, 2006).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastccsa.system.errors import InputError

THRESHOLDS = (0.05, 0.1, 0.2, 0.5)  # the risks of the metrics that tables show

Bools = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float64]


def worth(called: Bools, positive: Bools, threshold: float) -> Values:
    """Return what each image adds to the net benefit, [n]: its mean over images is the net benefit.

    Args:
        called: whether one acts on each image, [n].
        positive: whether each image is a case, [n].
        threshold: the risk from which on one acts, above 0 and below 1.

    Raises:
        InputError: the threshold is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise InputError(f"a net benefit needs a risk between 0 and 100 %, not {100 * threshold:g} %")
    found: Values = np.where(called, np.where(positive, 1.0, -threshold / (1 - threshold)), 0.0)
    return found
