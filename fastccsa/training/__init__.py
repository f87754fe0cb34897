"""Training: what a run is told (`TrainConfig`) and the loop that does it (`train`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.runs.config import TrainConfig
from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.training.loop import train

__all__ = ["TrainConfig", "train"]

# The loop imports pandas, DALI and scikit-learn; the command line's --help needs only the configuration.
__getattr__ = lazy_names(__name__, {"train": "fastccsa.training.loop"})
