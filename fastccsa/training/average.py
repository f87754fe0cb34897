"""Averages of a model's weights over the steps of a training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastccsa.models import Classifier
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import TrainConfig
from fastccsa.system.devices import autocast
from fastccsa.training.objectives import joined
from fastccsa.training.swad import Swad
from fastccsa.training.weights import blend, blend_on_device

# ERM++ averages from step 600 of at least 5,000 on. Networks from random weights need longer until their weights are
# worth averaging.
UNIFORM_FROM = 1 / 4
ESTIMATION_BATCHES = 50


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

    def update(self, model: Classifier) -> None:
        """Move the average towards ``model``."""
        blend(self.model, model, 1 - self.decay)


class UniformAverage(WeightAverage):
    """The mean of a model over all steps since the last `restart`.

    Args:
        model: the model to average.
        begin: number of finished epochs after which the mean begins; until then, each epoch has its own.
    """

    def __init__(self, model: Classifier, begin: int) -> None:
        super().__init__(model, 0.0)
        self.begin = begin
        self.register_buffer("steps", torch.zeros((), device=model.head.weight.device))

    def update(self, model: Classifier) -> None:
        """Include the weights of ``model``."""
        steps = self.get_buffer("steps")
        steps += 1
        blend_on_device(self.model, model, steps.reciprocal())

    def end_epoch(self, epochs: int) -> None:
        """Note that ``epochs`` epochs are finished."""
        if epochs <= self.begin:
            self.get_buffer("steps").zero_()


def make_average(config: TrainConfig, model: Classifier) -> nn.Module:
    """Make the average that a run keeps; a module without state if there is none."""
    assert config.head_epochs is not None
    if config.average == "swad":
        return Swad(model, config.epochs)
    if config.average == "uniform":
        return UniformAverage(model, max(config.head_epochs, math.ceil(UNIFORM_FROM * config.epochs)))
    return WeightAverage(model, config.ema) if config.ema else nn.Module()


def model_to_keep(state: TrainState) -> Classifier:
    """Return the model that is scored and saved after each epoch: the average if there is one, except SWAD's."""
    return state.average.model if isinstance(state.average, WeightAverage) else state.model


@torch.no_grad()
def estimate_batchnorm(
    model: Classifier,
    batches: Iterable[dict[str, Tensor]],
    device: torch.device,
    dtype: torch.dtype | None,
    joint: bool,
) -> None:
    """Give BatchNorm the statistics of averaged weights, those of `ESTIMATION_BATCHES` training batches in equal parts.

    The mean of the statistics that single steps had is not that of the averaged weights (Izmailov et al., Averaging
    weights leads to wider optima and better generalization, UAI 2018). Networks without BatchNorm, or with frozen
    statistics, do not change. ``joint`` passes both images of pairs through the network in one batch.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [module.momentum for module in norms]
    if not norms or model.backbone_is_frozen or model.batchnorm_is_frozen:
        return
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # equal parts
        module.train()
    for batch in itertools.islice(batches, ESTIMATION_BATCHES):
        streams = [images for name, images in batch.items() if name.startswith("images")]
        for images in [joined(*streams)] if joint and len(streams) == 2 else streams:
            with autocast(device, dtype):
                model(images.contiguous(memory_format=torch.channels_last))
    for module, momentum in zip(norms, momenta, strict=True):
        module.momentum = momentum
        module.eval()
