"""The optimiser and its learning rate schedule."""

from __future__ import annotations

import warnings

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from fastccsa.models import Classifier
from fastccsa.runs.config import TrainConfig


def build_optimizer(config: TrainConfig, model: Classifier) -> tuple[AdamW, LRScheduler]:
    """Make AdamW, and the schedule that multiplies its learning rate by lr_gamma every lr_step epochs.

    During the first head_epochs, the learning rate of all weights but the head's is 0. Their moments are estimated
    meanwhile, and a step remains the same work, so that it can be captured as a CUDA graph.
    """
    if not config.head_epochs:
        optimizer = AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True)
        return optimizer, StepLR(optimizer, step_size=config.lr_step, gamma=config.lr_gamma)
    first = config.head_epochs
    head = list(model.head.parameters())
    others = [parameter for name, parameter in model.named_parameters() if not name.startswith("head.")]
    groups = [{"params": head}, {"params": others}]
    optimizer = AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)

    def factor(epoch: int) -> float:
        return float(config.lr_gamma ** (epoch // config.lr_step))

    return optimizer, LambdaLR(optimizer, [factor, lambda epoch: factor(epoch) if epoch >= first else 0.0])


def end_epoch(scheduler: LRScheduler) -> None:
    """Set the next epoch's learning rate."""
    with warnings.catch_warnings():
        # Torch does not see the optimiser's steps that an earlier process or a CUDA graph took, and warns.
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
        scheduler.step()
