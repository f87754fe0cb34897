"""Groups of runs that differ only in their seed, and estimates over seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fastccsa.evaluation import Outputs
from fastccsa.evaluation.intervals import Interval
from fastccsa.experiments.rows import EXPERIMENTS
from fastccsa.runs.folder import OUTPUTS_FILE
from fastccsa.runs.records import Run
from fastccsa.system.errors import InputError


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds.

    Attributes:
        mean: the mean.
        error: its standard error; None for a single seed.
        count: number of seeds.
        interval: its 95 % interval over test images and seeds; None if there is none.
    """

    mean: float
    error: float | None
    count: int
    interval: Interval | None = None

    def text(self, scale: float = 100, digits: int = 1) -> str:
        """Return the mean with its interval or, without one and for at least two seeds, ± its standard error."""
        mean = f"{scale * self.mean:.{digits}f}"
        if self.interval is not None:
            return f"{mean} [{scale * self.interval.low:.{digits}f}, {scale * self.interval.high:.{digits}f}]"
        return mean if self.error is None else f"{mean} ±{scale * self.error:.{digits}f}"


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Return the mean and standard error (sample standard deviation / sqrt(n)) of the known values; None if none is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    error = float(np.std(known, ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else None
    return Estimate(float(np.mean(known)), error, len(known))


@dataclass(frozen=True)
class RunGroup:
    """The finished runs of one arm, such as an experiment, by seed; any other run forms a group by itself.

    Attributes:
        name: the arm (the experiment's letter), or the run's name.
        runs: the runs.
    """

    name: str
    runs: tuple[Run, ...]

    @property
    def shown(self) -> Run:
        """The run whose images and features are shown: the first one that has outputs."""
        return next((run for run in self.runs if (run.folder / OUTPUTS_FILE).exists()), self.runs[0])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs."""
        return tuple(run.config.seed for run in self.runs)

    @property
    def is_experiment(self) -> bool:
        """Whether the runs belong to an experiment of the paper, whose numbers they can be compared with."""
        return all(run.arm in EXPERIMENTS for run in self.runs)

    @property
    def anchor(self) -> str:
        """The name as an id on the page."""
        return "run-" + "".join(sign if sign.isascii() and sign.isalnum() else f"_{ord(sign):x}_" for sign in self.name)


def group_runs(runs: Sequence[Run]) -> tuple[RunGroup, ...]:
    """Group runs by the part of their name before the slash, as in ``K/seed0``, keeping their order."""
    names = dict.fromkeys(run.name.partition("/")[0] for run in runs)
    return tuple(RunGroup(name, tuple(run for run in runs if run.name.partition("/")[0] == name)) for name in names)


def read_outputs(run: Run) -> Outputs | None:
    """Read the run's test outputs; None if there are none, as in runs of older versions.

    Raises:
        InputError: the file is broken, or has other classes than the run's scores.
    """
    path = run.folder / OUTPUTS_FILE
    if not path.exists():
        return None
    outputs = Outputs.read(path)
    if outputs.classes != run.scores.classes:
        raise InputError(f"{path} has other classes than the run's scores; remove it to report without it")
    return outputs


def start_of(run: Run, runs_folder: Path) -> tuple[Outputs | None, str]:
    """Read the outputs, on the same images, of the run that this one started from; None and the reason if impossible.

    The folder is looked up at the configured path, and under its last one or two names in ``runs_folder``, because
    folders of runs are moved between machines.
    """
    if run.config.init is None:
        return None, "It did not start from another run."
    init = Path(run.config.init)
    places = (init, runs_folder / init.parent.name / init.name, runs_folder / init.name)
    found = next((place for place in places if (place / OUTPUTS_FILE).is_file()), None)
    if found is None:
        return None, f"The run it started from, {init}, is not here or has no outputs."
    start, own = Outputs.read(found / OUTPUTS_FILE), Outputs.read(run.folder / OUTPUTS_FILE)
    if not np.array_equal(start.rows, own.rows) or not np.array_equal(start.targets, own.targets):
        return None, f"The run it started from, {init}, was tested on other images."
    return start, ""
