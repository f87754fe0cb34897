"""Training: the configuration of a run (`TrainConfig`), the loop that trains it (`train`), and the parts of the loop.

Other packages use only the names below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.runs.config import TrainConfig
from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.training.loop import train
    from fastccsa.training.objectives import Forward, Objective, build_objective
    from fastccsa.training.start import start_model
    from fastccsa.training.step import make_forward

__all__ = ["Forward", "Objective", "TrainConfig", "build_objective", "make_forward", "start_model", "train"]

# The loop loads torch, pandas, DALI and scikit-learn; the command line's --help needs only the configuration.
__getattr__ = lazy_names(
    __name__,
    {
        "Forward": "fastccsa.training.objectives",
        "Objective": "fastccsa.training.objectives",
        "build_objective": "fastccsa.training.objectives",
        "make_forward": "fastccsa.training.step",
        "start_model": "fastccsa.training.start",
        "train": "fastccsa.training.loop",
    },
)
