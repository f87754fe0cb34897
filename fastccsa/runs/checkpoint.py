"""Checkpoints: the whole state of a run in one file; the previous one is kept in case the newest is damaged."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from fastccsa.models import Classifier
from fastccsa.models.torch_files import check_content, check_digest, digest, read_torch
from fastccsa.runs.checkpoint_check import Resumed, check_checkpoint
from fastccsa.runs.snapshot import replace_leaves
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

CHECKPOINT_FILE = "last.pt"
PREVIOUS_FILE = "previous.pt"

logger = logging.getLogger("fastccsa.runs")


@dataclass
class TrainState:
    """Everything that changes while a run trains: a step depends only on this and the run's configuration.

    Attributes:
        model, optimizer, scheduler, scaler: what is trained, and what updates it.
        memory: the state that the objective keeps from step to step.
        average: the moving average of the weights; a module without state if there is none.
        epoch, step: the next step and its epoch, counted from 0.
        meter: the loss sums of an epoch that was interrupted at ``step``; empty between epochs.
        history: one record for every finished epoch; the selected epoch follows from its validation recalls.
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


_STATEFUL = ("model", "optimizer", "scheduler", "scaler", "memory", "average")
_PLAIN = ("epoch", "step", "meter", "history")


def has_checkpoint(folder: Path) -> bool:
    """Return whether the run in ``folder`` has saved a checkpoint."""
    # A process that is killed between the two renames of a save leaves only the previous checkpoint.
    return any((folder / name).exists() for name in (CHECKPOINT_FILE, PREVIOUS_FILE))


def check_room(folder: Path, state: TrainState) -> None:
    """Check that the disk has room for the checkpoints of ``state``, before any work is done.

    Raises:
        InputError: the disk is too small.
    """
    parameters = sum(parameter.nbytes for parameter in state.model.parameters())
    others = sum(buffer.nbytes for module in (state.memory, state.average) for buffer in module.state_dict().values())
    checkpoint = 3 * parameters + others  # the optimiser keeps two numbers per weight
    # Room for a new checkpoint in addition to the last two, and for the selected model.
    there = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    needed, free = 3 * checkpoint + parameters - there, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder} needs {needed / 1e9:.2f} GB for checkpoints, and its disk has {free / 1e9:.2f} GB free: make "
            "room, or choose another folder"
        )


def save_checkpoint(folder: Path, state: TrainState, config_json: str) -> None:
    """Write the state, its configuration and torch's random states into ``folder``, completely or not at all.

    The previous checkpoint is kept as ``previous.pt``.
    """
    content = checkpoint_content(state, config_json)
    write_checkpoint(folder, replace_leaves(content, Tensor, lambda tensor: tensor.detach().cpu()))


def checkpoint_content(state: TrainState, config_json: str) -> dict[str, Any]:
    """Return what a checkpoint holds; its tensors are those of ``state``, which the next step changes."""
    content = {name: getattr(state, name).state_dict() for name in _STATEFUL}
    content |= {name: getattr(state, name) for name in _PLAIN}
    content["config"] = config_json
    # Sampling and augmentation are pure functions of the step; dropout and stochastic depth use torch's generators.
    content["random"] = torch.get_rng_state()
    content["random_cuda"] = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return content


def write_checkpoint(folder: Path, content: dict[str, Any]) -> None:
    """Write what `checkpoint_content` returned, with its tensors on the CPU, as `save_checkpoint` does."""
    content = {**content, "digest": digest(content)}
    with write_atomically(folder / CHECKPOINT_FILE, keep=folder / PREVIOUS_FILE) as path:
        _write(content, path)


def load_checkpoint(folder: Path, state: TrainState, run: Resumed | None = None) -> bool:
    """Load the checkpoint of ``folder`` into ``state`` and torch's generators; return whether there is one.

    Everything in the file is compared with ``state`` and ``run`` before it is used. If the newest checkpoint is
    damaged, the previous one is used instead and a warning is logged. No code from the file is executed.

    Args:
        folder: the run folder.
        state: the state before the first step.
        run: the run that is resumed; None checks only what ``state`` tells.

    Raises:
        InputError: no checkpoint can be read, or it belongs to another run.
    """
    if not has_checkpoint(folder):
        return False
    content = _read_newest(folder, state, run)
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


def _read_newest(folder: Path, state: TrainState, run: Resumed | None) -> dict[str, Any]:
    """Return the content of the newest intact checkpoint, which replaces a damaged one."""
    newest, previous = folder / CHECKPOINT_FILE, folder / PREVIOUS_FILE
    if not newest.exists():
        os.replace(previous, newest)
        return _read(newest, state, run)
    try:
        return _read(newest, state, run)
    except _ForeignError:
        raise
    except InputError as error:
        try:
            content = _read(previous, state, run)
        except InputError:
            raise error from None
        logger.warning("%s; %s is used instead: epoch %d, step %d", error, previous, content["epoch"], content["step"])
        # Otherwise the next save would keep the damaged file and delete the intact one.
        os.replace(previous, newest)
        return content


class _ForeignError(InputError):
    """A checkpoint is intact, but another run wrote it."""


def _read(file: Path, state: TrainState, run: Resumed | None) -> dict[str, Any]:
    """Read a file that `save_checkpoint` wrote.

    Raises:
        InputError: the file is missing, is not a checkpoint, has changed since it was written, or belongs to another
            run.
    """
    try:
        content = read_torch(file)
        if not isinstance(content, dict):
            raise InputError("it does not hold a checkpoint")
        check_content(content)
        check_digest(content)
        differences = [] if run is None else run.differences(content.get("config"))
        if not differences:
            return check_checkpoint(content, state, run)
    except (OSError, InputError) as error:
        raise _unusable(file, error) from error
    raise _ForeignError(
        f"{file} is the checkpoint of another run ({'; '.join(differences)}): restore the one of this run, or remove "
        "the file"
    )


def _write(content: dict[str, Any], path: Path) -> None:
    """Write a checkpoint's content.

    Raises:
        OSError: the system's error, which torch's own writer hides behind a RuntimeError ("enforce fail").
    """
    try:
        with open(path, "wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _unusable(file: Path, error: Exception) -> InputError:
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    reason = text.splitlines()[0] if text else type(error).__name__
    return InputError(f"{file} cannot be resumed from ({reason}): remove it to train this run from its start")
