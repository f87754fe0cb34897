"""The optimiser and its learning rate."""

from __future__ import annotations

import warnings

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler, StepLR

from fastccsa.runs.config import TrainConfig


def build_optimizer(config: TrainConfig, model: nn.Module) -> tuple[AdamW, StepLR]:
    """AdamW, and the schedule that multiplies its rate by lr_gamma after every lr_step epochs."""
    optimizer = AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return optimizer, StepLR(optimizer, step_size=config.lr_step, gamma=config.lr_gamma)


def end_epoch(scheduler: LRScheduler) -> None:
    """Go on to the next epoch's learning rate."""
    with warnings.catch_warnings():
        # Torch misses the optimiser's steps where they were an earlier process's, or a graph's.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        scheduler.step()
