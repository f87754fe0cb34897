"""Running a model on a split and scoring it by domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastccsa.collections import Manifest
from fastccsa.evaluation.outputs import Outputs, make_outputs
from fastccsa.evaluation.scores import Scores, score
from fastccsa.images import ImageLoader, Transforms
from fastccsa.models import Classifier
from fastccsa.sampling import ImageSampler
from fastccsa.system.devices import amp_dtype, autocast, pick_device
from fastccsa.system.errors import InputError


class Predictions(NamedTuple):
    """True classes, predicted classes and domains of n images; int64 arrays [n]."""

    targets: np.ndarray
    predictions: np.ndarray
    domains: np.ndarray


def evaluation_loader(
    manifest: Manifest,
    device: torch.device,
    size: int,
    *,
    batch_size: int = 64,
    workers: int = 0,
    image_backend: str = "auto",
    cache: str | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> ImageLoader:
    """Make a loader of every image of ``manifest``, once each, in order, without augmentation.

    Each of ``world_size`` processes loads a disjoint share of the images.

    Raises:
        InputError: ``manifest`` is empty.
    """
    if len(manifest) == 0:
        raise InputError("there is no image to evaluate on: the split is empty in these domains")
    sampler = ImageSampler(
        manifest.labels,
        num_classes=len(manifest.classes),
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        shuffle=False,
    )
    return ImageLoader(
        manifest,
        sampler,
        augment=False,
        device=device,
        cache=cache,
        transforms=Transforms(size=size),
        backend=image_backend,
        num_threads=workers or None,
    )


Batch = Mapping[str, Tensor]


def _run_batches(
    model: Classifier, batches: Iterable[Batch], device: torch.device, dtype: torch.dtype | None
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Yield each batch with its logits and features; afterwards the model is in the same mode as before."""
    was_training = model.training
    model.eval()
    for batch in batches:
        with autocast(device, dtype):
            logits, features = model(batch["images"].contiguous(memory_format=torch.channels_last))
        yield batch, logits, features
    model.train(was_training)


@torch.inference_mode()
def predict(
    model: Classifier,
    batches: Iterable[Batch],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Predictions:
    """Predict the classes of ``batches`` of images, with targets and domains; ``dtype`` is autocast's, or None.

    Afterwards the model is in the same mode as before. There is a single host sync, at the end.
    """
    collected = [
        torch.stack([batch["target"], logits.argmax(1), batch["domain"]])
        for batch, logits, _ in _run_batches(model, batches, device, dtype)
    ]
    targets, predictions, domains = torch.cat(collected, dim=1).cpu().numpy()
    return Predictions(targets, predictions, domains)


@torch.inference_mode()
def collect_outputs(
    model: Classifier,
    batches: Iterable[Batch],
    device: torch.device,
    dtype: torch.dtype | None,
    images: Manifest,
    split: str,
) -> Outputs:
    """Run ``model`` on ``batches`` of ``images`` and keep its outputs; their rows are rows of ``images``.

    Like `predict`, it does not change the model's mode, and has a single host sync.
    """
    parts = [
        (batch["target"], batch["domain"], batch["index"], logits.float(), features.float())
        for batch, logits, features in _run_batches(model, batches, device, dtype)
    ]
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    return make_outputs(*columns, classes=images.classes, domain_names=images.domains, split=split)


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
    batch_size: int = 64,
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
    batch_size: int = 64,
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
        batch_size: images per batch.
        amp: auto, none, bfloat16 or float16.
        workers: number of threads that decode images; 0 lets the image pipeline choose.
        image_backend: native, dali, torchvision or auto; see `PairLoader`.
        progress: show a progress bar on stderr, if it is a terminal.
        rank, world_size: run on this share of the split; `Outputs.join` combines the shares.

    Raises:
        InputError: the split has no image, the model has another number of classes, or the device is invalid.
    """
    device = pick_device(str(device))
    dtype = amp_dtype(amp, device)
    if len(manifest.classes) != model.head.out_features:
        raise InputError(
            f"the model has {model.head.out_features} classes and the manifest has "
            f"{len(manifest.classes)} ({', '.join(manifest.classes)}): use one with the model's classes"
        )
    images = manifest.select(split=split)
    hidden = None if progress else True  # None hides it unless stderr is a terminal
    model.to(device).to(memory_format=torch.channels_last)
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
        outputs = collect_outputs(model, batches, device, dtype, images, split)
    rows = np.flatnonzero((manifest.table["split"] == split).to_numpy())
    return replace(outputs, rows=rows[outputs.rows])
