"""Runs that differ by their seed alone, as one; and numbers over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastccsa.evaluation import Outputs
from fastccsa.experiments.rows import EXPERIMENTS
from fastccsa.runs.folder import OUTPUTS_FILE
from fastccsa.runs.records import Run
from fastccsa.system.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, its standard error (None from one seed), and their number."""

    mean: float
    error: float | None
    count: int

    def text(self, scale: float = 100, digits: int = 1) -> str:
        """The mean and, from two seeds on, ± its standard error, both times ``scale``."""
        mean = f"{scale * self.mean:.{digits}f}"
        return mean if self.error is None else f"{mean} ±{scale * self.error:.{digits}f}"


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean and standard error (the sample's standard deviation / sqrt(n)) of what there is; None of nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else None
    return Estimate(float(np.mean(known)), error, len(known))


@dataclass(frozen=True)
class RunGroup:
    """The finished runs of one experiment, by seed; a run that is none is a group of its own.

    ``name`` is the experiment's letter, or the run's name.
    """

    name: str
    runs: tuple[Run, ...]

    @property
    def shown(self) -> Run:
        """The run whose single images and features are shown: the first that has kept its outputs."""
        return next((run for run in self.runs if (run.folder / OUTPUTS_FILE).exists()), self.runs[0])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs."""
        return tuple(run.config.seed for run in self.runs)

    @property
    def is_experiment(self) -> bool:
        """Whether `fastccsa experiment` made the runs, so that the paper has numbers to compare with."""
        return all(run.letter in EXPERIMENTS for run in self.runs)

    @property
    def anchor(self) -> str:
        """Its name as an id in the page."""
        return "run-" + "".join(sign if sign.isascii() and sign.isalnum() else f"_{ord(sign):x}_" for sign in self.name)


def group_runs(runs: Sequence[Run]) -> tuple[RunGroup, ...]:
    """Gather runs by what stands before the slash of names such as ``K/seed0``, in their order."""
    names = dict.fromkeys(run.name.partition("/")[0] for run in runs)
    return tuple(RunGroup(name, tuple(run for run in runs if run.name.partition("/")[0] == name)) for name in names)


def read_outputs(run: Run) -> Outputs | None:
    """The run's test outputs; None where it kept none, as runs of older versions.

    Raises:
        InputError: the file is broken, or has other classes than the run's scores.
    """
    path = run.folder / OUTPUTS_FILE
    if not path.exists():
        return None
    outputs = Outputs.read(path)
    if outputs.classes != run.scores.classes:
        raise InputError(f"{path}: other classes than in the run's scores; remove it to report without it")
    return outputs


def start_of(run: Run, runs_folder: Path) -> tuple[Outputs | None, str]:
    """Outputs on the same images of the run that this one started from; or None, and why in words.

    The folder is looked for where the configuration has it, and in ``runs_folder`` by its last names, for
    folders of runs are moved between machines.
    """
    if run.config.init is None:
        return None, "It started from no other run."
    init = Path(run.config.init)
    places = (init, runs_folder / init.parent.name / init.name, runs_folder / init.name)
    found = next((place for place in places if (place / OUTPUTS_FILE).is_file()), None)
    if found is None:
        return None, f"The run it started from, {init}, is not here or kept no outputs."
    start, own = Outputs.read(found / OUTPUTS_FILE), Outputs.read(run.folder / OUTPUTS_FILE)
    if not np.array_equal(start.rows, own.rows) or not np.array_equal(start.targets, own.targets):
        return None, f"The run it started from, {init}, was tested on other images."
    return start, ""
