"""The state of a training run, whole, in one file; and the one before it, should the newest be damaged."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fastccsa.models.backbone import Classifier
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

CHECKPOINT_FILE = "last.pt"
PREVIOUS_FILE = "previous.pt"

logger = logging.getLogger("fastccsa.training")


@dataclass
class TrainState:
    """Everything that changes while a run trains; a step depends on nothing else but the run's config.

    Attributes:
        memory: what the objective remembers from step to step.
        average: the moving average of the weights; a module without any state where there is none.
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
    average: nn.Module = field(default_factory=nn.Module)
    epoch: int = 0
    step: int = 0
    meter: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_recall: float = -1.0


_STATEFUL = ("model", "optimizer", "scheduler", "scaler", "memory", "average")
_PLAIN = ("epoch", "step", "meter", "history", "best_epoch", "best_recall")
_ADDED_LATER = ("memory", "average")  # which older checkpoints do not have


def has_checkpoint(folder: Path) -> bool:
    """Whether a run was begun in ``folder`` and got as far as a checkpoint."""
    # A process killed between two renames leaves the previous one alone.
    return any((folder / name).exists() for name in (CHECKPOINT_FILE, PREVIOUS_FILE))


def save_checkpoint(folder: Path, state: TrainState, config_json: str) -> None:
    """Write the state, its configuration and torch's random states into ``folder``, whole or not at all.

    The checkpoint that stood there is kept as ``previous.pt``.
    """
    content = {name: getattr(state, name).state_dict() for name in _STATEFUL}
    content |= {name: getattr(state, name) for name in _PLAIN}
    content["config"] = config_json
    # Sampling and augmentation are functions of the step; dropout and stochastic depth draw from these.
    content["random"] = torch.get_rng_state()
    content["random_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    content = _on_cpu(content)
    content["digest"] = _digest(content)
    with write_atomically(folder / CHECKPOINT_FILE, keep=folder / PREVIOUS_FILE) as path:
        _write(content, path)


def load_checkpoint(folder: Path, state: TrainState) -> bool:
    """Put the checkpoint of ``folder`` into ``state`` and torch's generators; False when there is none.

    Where the newest is damaged, the one before it takes its place, which the log says. Nothing in a file is run.

    Raises:
        InputError: no checkpoint can be read, or it is not of this run.
    """
    if not has_checkpoint(folder):
        return False
    content = _read_newest(folder)
    for name in _ADDED_LATER:
        content.setdefault(name, {})
    try:
        for name in _STATEFUL:
            getattr(state, name).load_state_dict(content[name])
        for name in _PLAIN:
            setattr(state, name, content[name])
        torch.set_rng_state(content["random"])
        if torch.cuda.is_available() and len(content["random_cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(content["random_cuda"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        raise _unusable(folder / CHECKPOINT_FILE, error) from error
    return True


def _read_newest(folder: Path) -> dict[str, Any]:
    """The content of the newest checkpoint that is whole; a damaged one is replaced by it."""
    newest, previous = folder / CHECKPOINT_FILE, folder / PREVIOUS_FILE
    if not newest.exists():
        os.replace(previous, newest)
        return _read(newest)
    try:
        return _read(newest)
    except InputError as error:
        try:
            content = _read(previous)
        except InputError:
            raise error from None
        logger.warning("%s; %s takes its place: epoch %d, step %d", error, previous, content["epoch"], content["step"])
        # Otherwise the next save would keep the damaged one, and drop the whole one.
        os.replace(previous, newest)
        return content


def _read(file: Path) -> dict[str, Any]:
    """Read a file that `save_checkpoint` wrote.

    Raises:
        InputError: it is missing, no checkpoint, or other bytes than were written.
    """
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        # Older checkpoints have no digest.
        expected = content.pop("digest", None)
        if expected is not None and _digest(content) != expected:
            raise ValueError("its content is not what was saved")
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        raise _unusable(file, error) from error
    return dict(content)


def _write(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint's content.

    Raises:
        OSError: what the system said against it. Torch's own writer keeps that to itself ("enforce fail").
    """
    try:
        with open(path, "wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _unusable(file: Path, error: Exception) -> InputError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return InputError(f"{file} cannot be resumed from ({reason}): remove it to train this run from its start")


def _on_cpu(value: Any) -> Any:
    """The same with its tensors on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        same = copy(value)  # a state dict has attributes of its own, which some networks ask for
        same.update({key: _on_cpu(item) for key, item in value.items()})
        return same
    if isinstance(value, list | tuple):
        return type(value)(_on_cpu(item) for item in value)
    return value


def _digest(content: dict[str, Any]) -> str:
    """Checksum of everything in a checkpoint: torch reads a file with flipped bits without a word."""
    total = hashlib.blake2b(digest_size=16)
    _digest_into(total, content)
    return total.hexdigest()


def _digest_into(total: hashlib.blake2b, value: Any) -> None:
    if isinstance(value, Tensor):
        total.update(f"{value.dtype} {tuple(value.shape)}".encode())
        if value.numel():
            total.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        for key, item in value.items():
            total.update(repr(key).encode())
            _digest_into(total, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _digest_into(total, item)
    else:
        total.update(repr(value).encode())
