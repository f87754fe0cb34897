"""What the training loop does for the average of the weights, if the run keeps one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from fastccsa.models import Classifier
from fastccsa.runs.checkpoint import TrainState
from fastccsa.system.devices import autocast
from fastccsa.training.average import UniformAverage, estimate_batchnorm, model_to_keep
from fastccsa.training.saving import before_batch, stoppable
from fastccsa.training.swad import Swad

if TYPE_CHECKING:
    from fastccsa.training.run import Run


def before_validation(state: TrainState, run: Run) -> None:
    """Prepare the average that is going to be validated."""
    if isinstance(state.average, UniformAverage):
        _estimate(state.average.model, state, run)


def after_validation(state: TrainState, run: Run) -> dict[str, Any]:
    """End the epoch for the average, and score the images that are watched.

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
    loss = _validation_loss(state, run, stoppable(run.validation_loader.epoch(0), state, run))
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


@torch.inference_mode()
def _validation_loss(state: TrainState, run: Run, images: Iterable[dict[str, Tensor]]) -> float:
    """Return the cross-entropy of the model itself on the validation images, averaged by domain, then over domains."""
    domains = len(run.images.validation.domains)
    totals = torch.zeros((2, domains), dtype=torch.float64, device=run.device)
    state.model.eval()
    for batch in images:
        with autocast(run.device, run.dtype):
            logits, _ = state.model(batch["images"].contiguous(memory_format=torch.channels_last))
        losses = cross_entropy(logits.float(), batch["target"], reduction="none").double()
        members = one_hot(batch["domain"], domains).double()
        totals += torch.stack([members.T @ losses, members.sum(dim=0)])
    sums, counts = run.ranks.sum(totals).cpu()
    present = counts > 0
    return float((sums[present] / counts[present]).mean())
