"""The paper's table of experiments: its rows are declared, planned, checked and run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.experiments.rows import EXPERIMENTS, Experiment
from fastccsa.experiments.scale import PRESETS, Scale
from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.experiments.plan import make_plan
    from fastccsa.experiments.scheduler import execute, make_slots

__all__ = ["EXPERIMENTS", "PRESETS", "Experiment", "Scale", "execute", "make_plan", "make_slots"]

# These load torch and pandas; the rows themselves are light.
__getattr__ = lazy_names(
    __name__,
    {
        "execute": "fastccsa.experiments.scheduler",
        "make_plan": "fastccsa.experiments.plan",
        "make_slots": "fastccsa.experiments.scheduler",
    },
)
