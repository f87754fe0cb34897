"""Shared by the scripts here: a small training on rendered images, and the comparison of two finished runs."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from fastccsa.data import render_collections
from fastccsa.training import TrainConfig


def render(folder: Path) -> Path:
    """Render the seven collections as small as possible; return their manifest."""
    render_collections(folder, scale=0.001, width=64, minimum=10, progress=False)
    return folder / "manifest.csv"


def small_run(manifest: Path, out: Path, epochs: int, **changes: object) -> TrainConfig:
    """Configure CCSA on about 90 of them at 32 px: about 12 steps per epoch, a checkpoint after every other step."""
    settings = {
        "n_sec": 1, "fraction": 0.001, "backbone": "shufflenet_v2_x0_5", "weights": "none", "size": 32, "batch_size": 8,
        "lr": 1e-3, "epochs": epochs, "lr_step": 1, "cache": "disk", "checkpoint_every": 2, "device": "cpu",
        "workers": 1, "ema": 0.9,
    }  # fmt: skip
    return TrainConfig(manifest=str(manifest), out=str(out), **{**settings, **changes})


def differences(one: Path, other: Path) -> list[str]:
    """Name the tensors of two finished runs that differ in any bit: best model, last weights, optimiser, average."""
    found = different(load_file(one / "model.safetensors"), load_file(other / "model.safetensors"), "best model")
    first, second = (torch.load(run / "last.pt", weights_only=True) for run in (one, other))
    for part in ("model", "optimizer", "scheduler", "average", "memory", "random", "epoch"):
        found += different(first[part], second[part], part)
    for name in ("scores_last.json", "scores.json"):
        if (one / name).read_text() != (other / name).read_text():
            found.append(name)
    return found


def different(first: object, second: object, name: str) -> list[str]:
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [name]
    if isinstance(first, dict):
        keys = [name] if first.keys() != second.keys() else []
        return keys + [bad for key in first for bad in different(first[key], second.get(key), f"{name}.{key}")]
    return [] if first == second else [name]
