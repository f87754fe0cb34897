"""An exponential moving average of a model's weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn

from fastccsa.models import Classifier


class WeightAverage(nn.Module):
    """The moving average of a model: after each step, ``average += (1 - decay) (model - average)``.

    BatchNorm's statistics are averaged like the weights; integer buffers are copied. Updates need no host sync. The
    state dict is that of the model.

    Args:
        model: the model to average; its current weights are the initial average.
        decay: share of the average that an update keeps, in [0, 1).
    """

    def __init__(self, model: Classifier, decay: float) -> None:
        super().__init__()
        self.model = deepcopy(model).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: Classifier) -> None:
        """Move the average towards ``model``."""
        mine = [*self.model.parameters(), *self.model.buffers()]
        theirs = [*model.parameters(), *model.buffers()]
        real = [(a, b.detach()) for a, b in zip(mine, theirs, strict=True) if a.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in real], [b for _, b in real], 1 - self.decay)
        for a, b in zip(mine, theirs, strict=True):
            if not a.is_floating_point():
                a.copy_(b)
