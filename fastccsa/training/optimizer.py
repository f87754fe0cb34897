"""The optimiser and its learning rate schedule."""

from __future__ import annotations

import warnings
from typing import Any

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from fastccsa.models import Classifier
from fastccsa.models.depth import layers_by_depth
from fastccsa.runs.config import TrainConfig


def build_optimizer(config: TrainConfig, model: Classifier) -> tuple[AdamW, LRScheduler]:
    """Make AdamW, and the schedule that multiplies its learning rates by lr_gamma every lr_step epochs.

    With ``layer_decay``, each layer has a learning rate of its own. During the first ``head_epochs``, that of all
    layers but the head is 0: their moments are estimated meanwhile, and a step remains the same work, so that it can be
    captured as a CUDA graph.
    """
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay, "fused": True}
    if config.layer_decay == 1 and not config.head_epochs:
        optimizer = AdamW([each for each in model.parameters() if each.requires_grad], **options)
        return optimizer, StepLR(optimizer, step_size=config.lr_step, gamma=config.lr_gamma)
    head, *layers = layers_by_depth(model)
    if config.layer_decay == 1:
        layers = [[parameter for layer in layers for parameter in layer]]
    rates = [config.lr * config.layer_decay**depth for depth in range(len(layers) + 1)]
    groups = [{"params": layer, "lr": rate} for layer, rate in zip([head, *layers], rates, strict=True)]
    optimizer = AdamW(groups, **options)

    def of_head(epoch: int) -> float:
        return float(config.lr_gamma ** (epoch // config.lr_step))

    def of_others(epoch: int) -> float:
        return of_head(epoch) if epoch >= (config.head_epochs or 0) else 0.0

    return optimizer, LambdaLR(optimizer, [of_head, *[of_others] * len(layers)])


def end_epoch(scheduler: LRScheduler) -> None:
    """Set the next epoch's learning rate."""
    with warnings.catch_warnings():
        # Torch does not see the optimiser's steps that an earlier process or a CUDA graph took, and warns.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        scheduler.step()
