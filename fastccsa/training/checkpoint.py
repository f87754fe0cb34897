"""The state of a training run, whole, in one file."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fastccsa.errors import InputError
from fastccsa.files import write_atomically
from fastccsa.models import Classifier

CHECKPOINT_FILE = "last.pt"


@dataclass
class TrainState:
    """Everything that changes while a run trains; a step depends on nothing else but the run's config.

    Attributes:
        memory: what the objective remembers from step to step.
        epoch, step: the step to do next, counted from 0.
        meter: the loss sums of an epoch that is interrupted at ``step``; empty between epochs.
        history: one record for every finished epoch.
        best_epoch, best_recall: number (from 1) and validation recall of the best epoch so far.
    """

    model: Classifier
    optimizer: Optimizer
    scheduler: LRScheduler
    scaler: GradScaler
    memory: nn.Module = field(default_factory=nn.Module)
    epoch: int = 0
    step: int = 0
    meter: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_recall: float = -1.0


_STATEFUL = ("model", "optimizer", "scheduler", "scaler", "memory")
_PLAIN = ("epoch", "step", "meter", "history", "best_epoch", "best_recall")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run was begun in ``folder`` and got as far as a checkpoint."""
    return (folder / CHECKPOINT_FILE).exists()


def save_checkpoint(folder: Path, state: TrainState, config_json: str) -> None:
    """Write the state, its configuration and torch's random states into ``folder``, whole or not at all."""
    content = {name: getattr(state, name).state_dict() for name in _STATEFUL}
    content |= {name: getattr(state, name) for name in _PLAIN}
    content["config"] = config_json
    # Sampling and augmentation are functions of the step; dropout and stochastic depth draw from these.
    content["random"] = torch.get_rng_state()
    content["random_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    with write_atomically(folder / CHECKPOINT_FILE) as file:
        torch.save(content, file)


def load_checkpoint(folder: Path, state: TrainState) -> bool:
    """Put the checkpoint of ``folder`` into ``state`` and torch's generators; False when there is none.

    Raises:
        InputError: the file cannot be read, or is not of this run.
    """
    if not has_checkpoint(folder):
        return False
    file = folder / CHECKPOINT_FILE
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        content.setdefault("memory", {})  # which older checkpoints do not have
        for name in _STATEFUL:
            getattr(state, name).load_state_dict(content[name])
        for name in _PLAIN:
            setattr(state, name, content[name])
        torch.set_rng_state(content["random"])
        if torch.cuda.is_available() and len(content["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(content["random_cuda"])
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        pickle.UnpicklingError,
    ) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{file} cannot be resumed from ({reason}): remove it to train this run from its start"
        ) from error
    return True
