"""The run folder: what is in it, and what it says about itself.

config.json         what the run was told, with the manifest's checksum
environment.json    versions, hardware, first weights, time
sampling.json       class counts, and the probabilities and weights of classes and pairs
metrics.jsonl       one line an epoch
model.safetensors, model.json    the best model so far
last.pt             everything needed to go on
test_outputs.safetensors    logits and features of the test images
scores.json         test scores by domain; there once the run is finished
tensorboard/        scalars
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fastccsa import machine
from fastccsa.errors import InputError
from fastccsa.evaluation import Scores
from fastccsa.files import write_atomically
from fastccsa.training.config import CONFIG_FILE, TrainConfig

SCORES_FILE = "scores.json"
METRICS_FILE = "metrics.jsonl"
OUTPUTS_FILE = "test_outputs.safetensors"
ENVIRONMENT_FILE = "environment.json"
TENSORBOARD_FOLDER = "tensorboard"

_PACKAGES = ("fastccsa", "torch", "torchvision", "nvidia-dali-cuda130", "numpy", "scikit-learn")


def open_run(config: TrainConfig) -> Path:
    """Open the run folder of ``config``: a new one, or the one where the same training was begun.

    Raises:
        InputError: it holds another training, naming the settings that differ, or cannot be written.
    """
    folder = Path(config.out)
    if (folder / CONFIG_FILE).exists():
        differences = config.differences(TrainConfig.read(folder))
        if differences:
            raise InputError(
                f"{folder} holds a run with other settings ({'; '.join(differences)}): "
                "repeat its settings to resume it, or choose another folder"
            )
    _write(folder / CONFIG_FILE, config.to_json())
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
