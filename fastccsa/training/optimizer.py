"""The optimiser and its learning rate schedule."""

from __future__ import annotations

import warnings

from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LRScheduler, StepLR

from fastccsa.runs.config import TrainConfig


def build_optimizer(config: TrainConfig, model: nn.Module) -> tuple[AdamW, StepLR]:
    """Make AdamW, and the schedule that multiplies its learning rate by lr_gamma every lr_step epochs."""
    optimizer = AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
    return optimizer, StepLR(optimizer, step_size=config.lr_step, gamma=config.lr_gamma)


def end_epoch(scheduler: LRScheduler) -> None:
    """Set the next epoch's learning rate."""
    with warnings.catch_warnings():
        # Torch does not see the optimiser's steps that an earlier process or a CUDA graph took, and warns.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        scheduler.step()
