"""The parts of a run, and the choice among its epochs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fastccsa.collections import Manifest
from fastccsa.evaluation import Candidate
from fastccsa.evaluation.parts import Parts
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.images import ImageLoader
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.runs.run_files import RunFiles
from fastccsa.runs.selection import SelectionRule
from fastccsa.system.progress import Say
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import Objective
from fastccsa.training.pace import Pace
from fastccsa.training.ranks import Ranks
from fastccsa.training.scalars import ScalarLog
from fastccsa.training.step import Step
from fastccsa.training.stopping import StopRequests
from fastccsa.training.swad import Swad
from fastccsa.training.trace import StepTrace
from fastccsa.training.watch import Watch

OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True)
class Run:
    """The parts of a run that stay the same while it trains.

    Attributes:
        config, folder: the configuration, and the run folder.
        manifest, images: all images, and those that the run trains on and selects by.
        device, dtype: where it computes, and the dtype of autocast.
        ranks: the processes that train together.
        objective, step: what a step minimises, and the step itself.
        validation_loader: this rank's share of the validation images.
        replayed: predicts their classes from the GPU's memory; None where they are not there.
        halved: how many of them pass through the model at a time.
        watch: scores of other images after each epoch.
        meter, pace: running means of the loss terms; how far the host runs ahead of the GPU.
        files: writes checkpoints, the model and the metrics; used by the first rank.
        stop: requests to stop.
        log, trace: the log of scalars, and the profile of a few steps.
        say, progress: prints a status line; whether to show progress bars.
        on_epoch: called after each epoch; see `train`.
    """

    config: TrainConfig
    folder: Path
    manifest: Manifest
    images: RunImages
    device: torch.device
    dtype: torch.dtype | None
    ranks: Ranks
    objective: Objective
    step: Step
    validation_loader: ImageLoader
    replayed: ReplayedPredictions | None
    halved: Parts
    watch: Watch
    meter: Meter
    pace: Pace
    files: RunFiles
    stop: StopRequests
    log: ScalarLog
    trace: StepTrace
    say: Say
    progress: bool
    on_epoch: OnEpoch | None = None


def criterion_by_epoch(state: TrainState, run: Run, rule: SelectionRule) -> list[float]:
    """Return the criterion of ``rule`` for every finished epoch."""
    criterion = run.images.criteria[rule]
    recorded = (record.get("selection", {}).get(rule) for record in state.history)  # older versions did not record it
    return [
        criterion.mean(record["validation"]) if value is None else value
        for value, record in zip(recorded, state.history, strict=True)
    ]


def choice(state: TrainState, run: Run, rule: SelectionRule) -> Candidate:
    """Return the finished epoch that ``rule`` selects."""
    values = criterion_by_epoch(state, run, rule)
    epoch = run.images.criteria[rule].select(values)
    return Candidate(epoch, values[epoch - 1])


def is_done(state: TrainState, run: Run) -> bool:
    """Whether all epochs are done, SWAD needs no more, or the highest criterion is ``patience`` epochs ago."""
    values, patience = criterion_by_epoch(state, run, run.images.selection), run.config.patience
    # The selected epoch may be a later one whose criterion is lower: only a higher criterion counts as an improvement.
    highest = values.index(max(values)) + 1 if values else 0
    if isinstance(state.average, Swad) and state.average.stretch is not None and state.average.stretch.is_over:
        return True
    return state.epoch >= run.config.epochs or bool(patience and state.epoch - highest >= patience)
