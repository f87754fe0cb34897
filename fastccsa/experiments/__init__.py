"""The paper's table of experiments: its rows declared, planned, checked and run."""

from __future__ import annotations

import importlib
from typing import Any

from fastccsa.experiments.rows import EXPERIMENTS, Experiment
from fastccsa.experiments.scale import PRESETS, Scale

__all__ = ["EXPERIMENTS", "PRESETS", "Experiment", "Scale", "execute", "make_plan", "make_slots"]


_LAZY = {
    "execute": "fastccsa.experiments.scheduler",
    "make_plan": "fastccsa.experiments.plan",
    "make_slots": "fastccsa.experiments.scheduler",
}


def __getattr__(name: str) -> Any:
    # These bring in torch and pandas; the rows alone are light.
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
