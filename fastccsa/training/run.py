"""The parts of a run, and the choice among its epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from fastccsa.collections import Manifest
from fastccsa.evaluation import Candidate
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.images import ImageLoader
from fastccsa.models import Classifier, ModelCard
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.runs.run_files import RunFiles
from fastccsa.runs.selection import SelectionRule
from fastccsa.system.progress import Say
from fastccsa.training.average import WeightAverage
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import Objective
from fastccsa.training.ranks import Ranks
from fastccsa.training.scalars import ScalarLog
from fastccsa.training.step import Step
from fastccsa.training.stopping import StopRequests
from fastccsa.training.trace import StepTrace


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
        meter: running means of the loss terms.
        card: describes the model that is saved.
        files: writes checkpoints, the model and the metrics; used by the first rank.
        stop: requests to stop.
        log, trace: the TensorBoard log, and the profile of a few steps.
        say, progress: prints a status line; whether to show progress bars.
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
    meter: Meter
    card: ModelCard
    files: RunFiles
    stop: StopRequests
    log: ScalarLog
    trace: StepTrace
    say: Say
    progress: bool


def model_to_keep(state: TrainState) -> Classifier:
    """Return the model that is scored and saved: the moving average if there is one."""
    return state.average.model if isinstance(state.average, WeightAverage) else state.model


def criterion_by_epoch(state: TrainState, run: Run, rule: SelectionRule) -> list[float]:
    """Return the criterion of ``rule`` for every finished epoch."""
    # Computed from the recalls, because records of older versions do not have the criteria.
    return [run.images.criteria[rule].mean(record["validation"]) for record in state.history]


def choice(state: TrainState, run: Run, rule: SelectionRule) -> Candidate:
    """Return the finished epoch that ``rule`` selects."""
    values = criterion_by_epoch(state, run, rule)
    epoch = run.images.criteria[rule].select(values)
    return Candidate(epoch, values[epoch - 1])


def is_done(state: TrainState, run: Run) -> bool:
    """Whether all epochs are done, or the highest criterion of the run's rule is ``patience`` epochs ago."""
    values, patience = criterion_by_epoch(state, run, run.images.selection), run.config.patience
    # The selected epoch may be a later one whose criterion is lower: only a higher criterion counts as an improvement.
    highest = values.index(max(values)) + 1 if values else 0
    return state.epoch >= run.config.epochs or bool(patience and state.epoch - highest >= patience)
