"""What the training loop does for the average of the weights, if the run keeps one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from fastccsa.models import Classifier
from fastccsa.runs.checkpoint import TrainState
from fastccsa.training.average import UniformAverage, estimate_batchnorm, model_to_keep
from fastccsa.training.saving import before_batch
from fastccsa.training.swad import Swad

if TYPE_CHECKING:
    from fastccsa.training.run import Run


def before_validation(state: TrainState, run: Run) -> None:
    """Prepare the average that is going to be validated."""
    if isinstance(state.average, UniformAverage):
        _estimate(state.average.model, state, run)


def after_validation(state: TrainState, run: Run, loss: float) -> dict[str, Any]:
    """End the epoch for the average, given the validation loss, and score the images that are watched.

    Returns:
        What the record of the epoch should contain.

    Raises:
        Interrupted: a stop was requested; the epoch's training is saved.
    """
    watched = run.watch.record(model_to_keep(state), run.device, run.dtype, lambda: before_batch(state, run))
    if isinstance(state.average, UniformAverage):
        state.average.end_epoch(state.epoch + 1)
    if not isinstance(state.average, Swad):
        return watched
    state.average.end_epoch(state.epoch, loss)
    return {"validation_loss": loss, **watched} if math.isfinite(loss) else watched


def save_swad(state: TrainState, run: Run) -> None:
    """Save the mean of SWAD as the run's model, if that is what it trains; the epochs are done."""
    if not isinstance(state.average, Swad):
        return
    model = state.average.model()
    _estimate(model, state, run)
    run.ranks.copy_from_first(model.buffers())
    if run.ranks.is_first:
        run.files.keep_model(model)
        run.files.save(state)


def describe_swad(average: Swad) -> str:
    """Say over which epochs SWAD's mean goes."""
    found = average.stretch
    assert found is not None
    return f"SWAD: mean of the weights of epochs {found.start + 1} to {found.end + 1}, by the validation loss"


def _estimate(model: Classifier, state: TrainState, run: Run) -> None:
    batches = run.objective.loader.epoch(state.epoch)
    estimate_batchnorm(model, batches, run.device, run.dtype, run.objective.joint_forward)
