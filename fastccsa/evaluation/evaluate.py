"""Running a model on a split and scoring it by domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from fastccsa.collections import Manifest
from fastccsa.evaluation.inference import collect_outputs_of, evaluation_loader
from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.scores import Scores, score
from fastccsa.models import Classifier
from fastccsa.system.devices import amp_dtype, pick_device
from fastccsa.system.errors import InputError


def score_outputs(outputs: Outputs) -> Scores:
    """Score outputs by domain."""
    return score(
        outputs.targets,
        outputs.predictions,
        outputs.domains,
        outputs.classes,
        outputs.domain_names,
        outputs.split,
    )


def evaluate(
    model: Classifier,
    manifest: Manifest,
    device: str | torch.device = "auto",
    *,
    split: str = "test",
    size: int = 224,
    batch_size: int | None = None,
    amp: str = "auto",
    workers: int = 0,
    image_backend: str = "auto",
    progress: bool = False,
) -> Scores:
    """Score ``model`` on one split of ``manifest``, by domain; see `run_split` for arguments and errors."""
    return score_outputs(
        run_split(
            model,
            manifest,
            device,
            split=split,
            size=size,
            batch_size=batch_size,
            amp=amp,
            workers=workers,
            image_backend=image_backend,
            progress=progress,
        )
    )


def run_split(
    model: Classifier,
    manifest: Manifest,
    device: str | torch.device = "auto",
    *,
    split: str = "test",
    size: int = 224,
    batch_size: int | None = None,
    amp: str = "auto",
    workers: int = 0,
    image_backend: str = "auto",
    progress: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> Outputs:
    """Run ``model`` on one split of ``manifest``; the rows of the outputs are rows of ``manifest``.

    Args:
        model: a `Classifier` whose logits follow ``manifest.classes``; it is moved to the device.
        manifest: the images.
        device: auto, cpu, cuda or cuda:N.
        split: train, validation or test.
        size: side length of the images in pixels, as in training.
        batch_size: images per batch; None is 64 on the CPU and 256 on a GPU.
        amp: auto, none, bfloat16 or float16.
        workers: number of threads that decode images; 0 lets the image pipeline choose.
        image_backend: native, dali, torchvision or auto; see `PairLoader`.
        progress: show a progress bar on stderr, if it is a terminal.
        rank, world_size: run on this share of the split; `Outputs.join` combines the shares.

    Raises:
        InputError: the split has no image, the model has another number of classes, or the device is invalid.
    """
    found = run_split_of(
        [model],
        manifest,
        device,
        split=split,
        size=size,
        batch_size=batch_size,
        amp=amp,
        workers=workers,
        image_backend=image_backend,
        progress=progress,
        rank=rank,
        world_size=world_size,
    )
    return found[0]


def run_split_of(
    models: Sequence[Classifier],
    manifest: Manifest,
    device: str | torch.device = "auto",
    *,
    split: str = "test",
    size: int = 224,
    batch_size: int | None = None,
    amp: str = "auto",
    workers: int = 0,
    image_backend: str = "auto",
    progress: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> list[Outputs]:
    """Do what `run_split` does for each of ``models``, and decode the images only once."""
    device = pick_device(str(device))
    dtype = amp_dtype(amp, device)
    for model in models:
        if len(manifest.classes) != model.head.out_features:
            raise InputError(
                f"the model has {model.head.out_features} classes and the manifest has "
                f"{len(manifest.classes)} ({', '.join(manifest.classes)}): use one with the model's classes"
            )
        model.to(device).to(memory_format=torch.channels_last)
    images = manifest.select(split=split)
    hidden = None if progress else True  # None hides it unless stderr is a terminal
    with evaluation_loader(
        images,
        device,
        size,
        batch_size=batch_size,
        workers=workers,
        image_backend=image_backend,
        rank=rank,
        world_size=world_size,
    ) as loader:
        batches = tqdm(loader.epoch(0), total=len(loader), desc=split, unit="batch", disable=hidden)
        found = collect_outputs_of(models, batches, device, dtype, images, split)
    rows = np.flatnonzero((manifest.table["split"] == split).to_numpy())
    return [replace(outputs, rows=rows[outputs.rows]) for outputs in found]
