"""Training: what a run is told (`TrainConfig`) and the loop that does it (`train`)."""

from __future__ import annotations

from typing import Any

from fastccsa.runs.config import TrainConfig

__all__ = ["TrainConfig", "train"]


def __getattr__(name: str) -> Any:
    # The loop brings in pandas, DALI and scikit-learn; the command line's --help needs the config alone.
    if name == "train":
        from fastccsa.training.loop import train

        return train
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
