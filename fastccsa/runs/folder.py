"""The files in a run folder: opening it, writing to it, and marking it as finished.

config.json         the configuration, with the manifest's checksum
environment.json    versions, hardware, first weights, time
images.csv          the images that it was trained on, and those that selected its model
sampling.json       class counts, and the probabilities and weights of classes and pairs
metrics.jsonl       one line per epoch
model.safetensors, model.json    the model of the epoch that is selected so far
last.pt             everything needed to resume
previous.pt         the checkpoint before that
diverged.csv        the images of a batch whose loss was not finite
diverged.safetensors    the inputs of that batch, as the network received them
trace.json          a profile of a few steps, if requested
test_outputs.safetensors    logits and features of the test images
validation_outputs.safetensors    those of the validation images, for thresholds and calibration
scores_last.json    test scores of the last epoch's model
scores.json         test scores by domain; present once the run is finished
model_card.md, model_card.json    the model card: data, training, scores with intervals, limits, what is left to write
tensorboard/        scalars
tracking.json, mlflow.db, wandb/    scalars for other trackers, if requested, and the run's names there
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fastccsa.evaluation.scores import Scores
from fastccsa.runs.checkpoint import has_checkpoint
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.system import machine
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.full_disk import disk_error
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.schema import build

# Messages of torch's writer, some of which hide the system's error.
_TORCH_WRITER = re.compile(r"PytorchStreamWriter|inline_container")

SCORES_FILE = "scores.json"
LAST_SCORES_FILE = "scores_last.json"
METRICS_FILE = "metrics.jsonl"
OUTPUTS_FILE = "test_outputs.safetensors"
VALIDATION_OUTPUTS_FILE = "validation_outputs.safetensors"
ENVIRONMENT_FILE = "environment.json"

logger = logging.getLogger("fastccsa.runs")

_PACKAGES = ("fastccsa", "torch", "torchvision", "nvidia-dali-cuda130", "numpy", "scikit-learn")


def open_run(config: TrainConfig) -> Path:
    """Open the run folder of ``config``: create it, or reopen the one in which the same training was started.

    Raises:
        InputError: the folder holds another training (the message names the settings that differ), or it cannot be
            written.
    """
    folder = Path(config.out)
    file = folder / CONFIG_FILE
    if file.exists():
        there = TrainConfig.read(folder)
        # Before the first checkpoint, nothing has been learnt from crops, or from images without them.
        if differences := config.differences(there if has_trained(folder) else replace(there, cache="auto")):
            raise InputError(
                f"{folder} holds a run with other settings ({'; '.join(differences)}): "
                "repeat its settings to resume it, or choose another folder"
            )
        if file.read_bytes() == config.to_json().encode():  # written earlier, or by the first of several processes
            return folder
    try:
        _write(file, config.to_json())
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}; make room, or choose another folder") from error
    return folder


def has_trained(folder: Path) -> bool:
    """Return whether the folder holds a run that has been saved, and goes on as it began, or is finished."""
    return (folder / CONFIG_FILE).exists() and (has_checkpoint(folder) or (folder / SCORES_FILE).exists())


def write_config(config: TrainConfig) -> None:
    """Write the configuration of a run into its folder, in place of the one there."""
    _write(Path(config.out) / CONFIG_FILE, config.to_json())


def experiment_folder(runs: str | os.PathLike[str], arm: str, seed: int) -> Path:
    """Return the run folder ``<arm>/seed<k>`` in the folder of all runs; an experiment's arm is its letter."""
    return Path(runs) / arm / f"seed{seed}"


def experiment_of(folder: Path) -> tuple[str, int] | None:
    """Return the arm and seed of a folder named as by `experiment_folder`; None for any other folder."""
    seed = re.fullmatch(r"seed(\d+)", folder.name)
    return (folder.parent.name, int(seed[1])) if seed else None


def finished_scores(folder: Path) -> Scores | None:
    """Read the test scores of a finished run; None if the run is not finished."""
    file = folder / SCORES_FILE
    return Scores.read(file) if file.exists() else None


def write_last_scores(folder: Path, scores: Scores) -> None:
    """Write the test scores of the last epoch's model."""
    _write(folder / LAST_SCORES_FILE, scores.to_json())


def write_scores(folder: Path, scores: Scores) -> None:
    """Write the test scores, which marks the run as finished."""
    _write(folder / SCORES_FILE, scores.to_json())


def write_metrics(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write one JSON object per line for every finished epoch, replacing the file."""
    _write(folder / METRICS_FILE, "".join(json.dumps(record) + "\n" for record in history))


def epochs_done(folder: Path) -> int:
    """Count the epochs that the run in ``folder`` has finished."""
    metrics = folder / METRICS_FILE
    try:
        return len(read_bytes(metrics).splitlines())
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise InputError(f"{metrics} cannot be read ({error.strerror}); remove it, and repeat the command") from error


@contextmanager
def saving(folder: Path, required: bool = True) -> Iterator[None]:
    """Turn a failed write within the block into a one-line error, or into a warning if it is not ``required``.

    Raises:
        InputError: something could not be written.
        RuntimeError: something else failed, such as a GPU.
    """
    try:
        yield
    # torch and safetensors wrap the system's errors in their own types.
    except (OSError, RuntimeError, SafetensorError, InputError) as error:
        number = disk_error(error)
        if isinstance(error, RuntimeError) and number is None and not _TORCH_WRITER.search(str(error)):
            raise  # a fault of a GPU or of the program, which another attempt to write would not mend
        reason = str(error).split("\n")[0]
        if isinstance(error, OSError) and error.errno:
            file = f"{Path(error.filename).name}: " if isinstance(error.filename, str) else ""
            reason = file + os.strerror(error.errno)
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        message = f"{folder} cannot be saved ({reason}; {free / 1e9:.2f} GB free): its last checkpoint is kept"
        if required:
            advice = "make room" if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else "remove the cause"
            raise InputError(f"{message}; {advice}, then repeat the same command to resume") from error
        logger.warning("%s, and the run goes on", message)


def write_environment(folder: Path, device: torch.device, **facts: Any) -> None:
    """Write the `environment` of this process, and ``facts`` about the run; earlier facts stay unless replaced."""
    file = folder / ENVIRONMENT_FILE
    try:
        before = read_environment(file)
    except InputError as error:
        logger.warning("%s; it is written again", error)
        before = {}
    _write(file, json.dumps({**before, **environment(device), **facts}, indent=2) + "\n")


def read_environment(file: Path) -> dict[str, Any]:
    """Read what `write_environment` wrote; empty if there is no such file.

    Raises:
        InputError: the file is broken.
    """
    try:
        with reported(file, "is not a record of versions and hardware", "remove it to report without it"):
            return build(dict[str, Any], load_json(read_bytes(file)))
    except FileNotFoundError:
        return {}


def environment(device: torch.device) -> dict[str, Any]:
    """Collect the versions of the packages that a result depends on, the hardware, and the command."""
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
    """Return the training time in seconds, without validation, and the mean number of training images per second."""
    seconds = sum(record["seconds"] for record in history)
    images = sum(record["seconds"] * record["images_per_second"] for record in history)
    return {"seconds": round(seconds, 1), "images_per_second": round(images / seconds, 1) if seconds else 0.0}


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write_text(text)
