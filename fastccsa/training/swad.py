"""SWAD: the mean of the weights of all steps on the flat stretch of the validation loss.

Cha et al., SWAD: Domain generalization by seeking flat minima, NeurIPS 2021, algorithm 1, with its constants. The
validation loss is looked at once per epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from fastccsa.models import Classifier
from fastccsa.training.weights import blend, blend_on_device

PATIENCE = 3  # epochs, the first included, whose lowest loss is that of the first: there the stretch starts
OVERFIT = 6  # epochs in a row above the limit that end it
TOLERANCE = 1.3  # the limit, in multiples of the mean loss of the first epochs of the stretch


@dataclass(frozen=True)
class Stretch:
    """What the validation losses of the first epochs tell.

    Attributes:
        start: the epoch in which the flat stretch starts, from 0; before it is certain, that with the lowest loss.
        end: the last epoch that belongs to it so far.
        is_certain: whether the start is.
        is_over: whether no later epoch can belong to it.
    """

    start: int
    end: int
    is_certain: bool
    is_over: bool


def find_stretch(losses: Sequence[float]) -> Stretch:
    """Find the flat stretch in the validation losses after each epoch so far, of which there is at least one."""
    start = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[start]:
            start = epoch
        if epoch - start + 1 == PATIENCE:
            break
    else:
        return Stretch(start, len(losses) - 1, is_certain=False, is_over=False)
    limit = TOLERANCE * sum(losses[start : start + PATIENCE]) / PATIENCE
    end = start
    for epoch in range(start + 1, len(losses)):
        if losses[epoch] <= limit:
            end = epoch
        elif epoch - end == OVERFIT:
            return Stretch(start, end, is_certain=True, is_over=True)
    return Stretch(start, end, is_certain=True, is_over=False)


class Swad(nn.Module):
    """The means of the weights that SWAD still needs, over the steps of three parts of the training.

    Updates need no host sync. Everything is part of the state dict.

    Attributes:
        kept: mean over the epochs of the stretch so far.
        pending: mean over the epochs after it, which belong to it if the loss falls again.
        current: mean over the steps of the current epoch.

    Args:
        model: the model to average.
        epochs: epochs of the run.
    """

    def __init__(self, model: Classifier, epochs: int) -> None:
        super().__init__()
        self.kept, self.pending, self.current = (deepcopy(model).requires_grad_(False) for _ in range(3))
        self.register_buffer("steps", torch.zeros((), device=model.head.weight.device))
        self.register_buffer("losses", torch.full((epochs,), math.nan, dtype=torch.float64))

    def update(self, model: Classifier) -> None:
        """Include the weights of ``model`` after a step."""
        steps = self.get_buffer("steps")
        steps += 1
        blend_on_device(self.current, model, steps.reciprocal())

    def end_epoch(self, epoch: int, loss: float) -> None:
        """End an epoch, counted from 0, after which the validation loss of the model, not of the mean, is ``loss``."""
        was = self.stretch
        self.get_buffer("losses")[epoch] = loss if math.isfinite(loss) else math.inf
        self.get_buffer("steps").zero_()
        found = self.stretch
        if was is None or found is None or found.start == epoch:
            blend(self.kept, self.current, 1.0)
            return
        if was.is_over:
            return
        # Until the start is certain, only its epoch is kept, and at most one other one is pending.
        kept_until = was.end if was.is_certain else was.start
        kept, pending = kept_until - was.start + 1, epoch - 1 - kept_until
        if found.is_certain and found.end > kept_until:
            if pending:
                blend(self.kept, self.pending, pending / (kept + pending))
            if found.end == epoch:
                blend(self.kept, self.current, 1 / (kept + pending + 1))
                return
            pending = 0
        blend(self.pending, self.current, 1 / (pending + 1))

    @property
    def stretch(self) -> Stretch | None:
        """The stretch so far; None in the first epoch."""
        losses = self._losses()
        return find_stretch(losses) if losses else None

    def model(self) -> Classifier:
        """Return the mean over the stretch, as if the training ended now; the pending epochs count until it starts."""
        model, found = deepcopy(self.kept), self.stretch
        if found is not None and not found.is_certain and found.end > found.start:
            blend(model, self.pending, (found.end - found.start) / (found.end - found.start + 1))
        return model

    def _losses(self) -> list[float]:
        return [loss for loss in self.get_buffer("losses").tolist() if not math.isnan(loss)]
