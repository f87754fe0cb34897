"""The run folder: what is in it, and what it says about itself.

config.json         what the run was told, with the manifest's checksum
environment.json    versions, hardware, first weights, time
sampling.json       class counts, and the probabilities and weights of classes and pairs
metrics.jsonl       one line an epoch
model.safetensors, model.json    the best model so far
last.pt             everything needed to go on
previous.pt         the same, one checkpoint earlier
diverged.csv        the images of a batch whose loss was not finite
diverged.safetensors    that batch, as the network saw it
trace.json          a profile of a few steps, where it was asked for
test_outputs.safetensors    logits and features of the test images
scores.json         test scores by domain; there once the run is finished
tensorboard/        scalars
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch.utils.tensorboard import SummaryWriter

from fastccsa.evaluation import Scores
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.system import machine
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

if TYPE_CHECKING:
    from typing_extensions import Self

SCORES_FILE = "scores.json"
METRICS_FILE = "metrics.jsonl"
OUTPUTS_FILE = "test_outputs.safetensors"
ENVIRONMENT_FILE = "environment.json"
TENSORBOARD_FOLDER = "tensorboard"

logger = logging.getLogger("fastccsa.training")

_PACKAGES = ("fastccsa", "torch", "torchvision", "nvidia-dali-cuda130", "numpy", "scikit-learn")


def open_run(config: TrainConfig) -> Path:
    """Open the run folder of ``config``: a new one, or the one where the same training was begun.

    Raises:
        InputError: it holds another training, naming the settings that differ, or cannot be written.
    """
    folder = Path(config.out)
    file = folder / CONFIG_FILE
    if file.exists():
        differences = config.differences(TrainConfig.read(folder))
        if differences:
            raise InputError(
                f"{folder} holds a run with other settings ({'; '.join(differences)}): "
                "repeat its settings to resume it, or choose another folder"
            )
        if file.read_text() == config.to_json():  # written before, or by the first of several processes
            return folder
    try:
        _write(file, config.to_json())
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}; make room, or choose another folder") from error
    return folder


def finished_scores(folder: Path) -> Scores | None:
    """Read the test scores of a finished run; None before it is finished."""
    file = folder / SCORES_FILE
    return Scores.read(file) if file.exists() else None


def write_scores(folder: Path, scores: Scores) -> None:
    """Write the test scores, which marks the run as finished."""
    _write(folder / SCORES_FILE, scores.to_json())


def write_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write one JSON object a line for every finished epoch, replacing what was there."""
    _write(folder / METRICS_FILE, "".join(json.dumps(record) + "\n" for record in history))


def check_room(folder: Path, state: TrainState) -> None:
    """Make sure that the checkpoints of ``state`` will fit the disk, before any work is lost.

    Raises:
        InputError: they will not.
    """
    parameters = sum(parameter.nbytes for parameter in state.model.parameters())
    others = sum(buffer.nbytes for module in (state.memory, state.average) for buffer in module.state_dict().values())
    checkpoint = 3 * parameters + others  # the optimiser keeps two numbers a weight
    # A new checkpoint, beside the last two, and the best model.
    there = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    needed, free = 3 * checkpoint + parameters - there, shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder} needs {needed / 1e9:.2f} GB for checkpoints, and its disk has {free / 1e9:.2f} GB free: make "
            "room, or choose another folder"
        )


@contextmanager
def saving(folder: Path, or_go_on: bool = False) -> Iterator[None]:
    """Write parts of a run; a disk that is full or refuses is told in one line, or just logged with ``or_go_on``.

    Raises:
        InputError: something could not be written.
    """
    try:
        yield
    # torch and safetensors have errors of their own for what the system told them.
    except (OSError, RuntimeError, SafetensorError, InputError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error).split("\n")[0]
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        message = f"{folder} cannot be saved ({reason}; {free / 1e9:.2f} GB free): its last checkpoint is kept"
        if not or_go_on:
            raise InputError(f"{message}; make room, then the same command goes on from there") from error
        logger.warning("%s, and the run goes on", message)


class ScalarLog:
    """TensorBoard's scalars of a run; what cannot be written is left out, since a run does not depend on it.

    Args:
        folder: the run folder; None writes nothing.
        done: batches of the run that were done before; what was logged after them is dropped.
    """

    def __init__(self, folder: Path | None, done: int) -> None:
        self._writer: SummaryWriter | None = None
        if folder is None:
            return
        try:
            self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=done + 1)
        except OSError as error:
            logger.warning("TensorBoard's log cannot be written (%s); the run goes on without it", error.strerror)

    def add(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write ``values`` under ``group``, at the run's batch ``step``."""
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
        except OSError as error:
            logger.warning("TensorBoard's log cannot be written (%s); the run goes on without it", error.strerror)
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as refused:
                logger.warning("TensorBoard's log lacks its end (%s)", refused.strerror)


def write_environment(folder: Path, device: torch.device, **facts: Any) -> None:
    """Write what this process runs with, and ``facts`` of the run; earlier processes' facts stay unless replaced."""
    file = folder / ENVIRONMENT_FILE
    before = json.loads(file.read_text()) if file.exists() else {}
    _write(file, json.dumps({**before, **environment(device), **facts}, indent=2) + "\n")


def environment(device: torch.device) -> dict[str, Any]:
    """Collect the versions of the packages a result depends on, the hardware, and the command."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    here = machine.describe(device)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "commit": machine.commit(),
        "command": shlex.join(sys.argv),
        "started": machine.now(),
        "processor": here["cpu"],
        "cores": here["cores"],
        "memory_gib": round(here["memory_bytes"] / 2**30, 1),
        "threads": torch.get_num_threads(),
        "variables": here["environment"],
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cuda": torch.version.cuda,
    }


def training_speed(history: list[dict[str, Any]]) -> dict[str, float]:
    """Sum up the training's time, validation not counted; seconds, and images a second."""
    seconds = sum(record["seconds"] for record in history)
    images = sum(record["seconds"] * record["images_per_second"] for record in history)
    return {"seconds": round(seconds, 1), "images_per_second": round(images / seconds, 1) if seconds else 0.0}


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write_text(text)
