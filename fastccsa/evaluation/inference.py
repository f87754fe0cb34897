"""Running a model on the batches of a loader, as fast as inference can be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastccsa.collections import Manifest
from fastccsa.evaluation.outputs import Outputs, make_outputs
from fastccsa.evaluation.parts import Parts
from fastccsa.images import ImageLoader, Transforms
from fastccsa.models import Classifier
from fastccsa.sampling import ImageSampler
from fastccsa.system.devices import autocast
from fastccsa.system.errors import InputError

# Images per batch. A GPU needs more of them at a time, and on the CPU another number could change the last bits.
BATCH_SIZES = {"cpu": 64, "cuda": 256}


Batch = Mapping[str, Tensor]


class Predictions(NamedTuple):
    """True classes, predicted classes and domains of n images, int64 [n], and their cross-entropies, float64 [n]."""

    targets: np.ndarray
    predictions: np.ndarray
    domains: np.ndarray
    losses: np.ndarray


def mean_loss(found: Predictions) -> float:
    """Return the cross-entropy, averaged over the images of each domain, then over the domains that have any."""
    losses = [found.losses[found.domains == domain] for domain in np.unique(found.domains)]
    # Exact sums do not depend on how the images were divided among processes.
    return math.fsum(math.fsum(part) / len(part) for part in losses) / len(losses)


def pack(batch: Batch, logits: Tensor) -> Tensor:
    """Return what a batch adds to `Predictions`, as one tensor on its device: int64 [4, rows], for `unpack`."""
    losses = cross_entropy(logits.float(), batch["target"], reduction="none").double()
    return torch.stack([batch["target"], logits.argmax(1), batch["domain"], losses.view(torch.int64)])


def unpack(packed: Tensor) -> Predictions:
    """Return the predictions of batches that `pack` returned, side by side; it waits for the device."""
    targets, predictions, domains, losses = packed.cpu().contiguous().numpy()
    return Predictions(targets, predictions, domains, losses.view(np.float64))


def evaluation_loader(
    manifest: Manifest,
    device: torch.device,
    size: int,
    *,
    batch_size: int | None = None,
    workers: int = 0,
    image_backend: str = "auto",
    cache: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    pixels: torch.dtype = torch.float32,
) -> ImageLoader:
    """Make a loader of every image of ``manifest``, once each, in order, without augmentation.

    Each of ``world_size`` processes loads a disjoint share of the images. ``batch_size`` None is `BATCH_SIZES`.
    ``pixels`` is the number type of the images.

    Raises:
        InputError: ``manifest`` is empty.
    """
    if len(manifest) == 0:
        raise InputError("there is no image to evaluate on: the split is empty in these domains")
    sampler = ImageSampler(
        manifest.labels,
        num_classes=len(manifest.classes),
        batch_size=batch_size or BATCH_SIZES[device.type],
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
        dtype=pixels,
        backend=image_backend,
        num_threads=workers or None,
    )


@torch.inference_mode()
def predict(
    model: Classifier,
    batches: Iterable[Batch],
    device: torch.device,
    dtype: torch.dtype | None = None,
    parts: Parts | None = None,
) -> Predictions:
    """Predict the classes of ``batches`` of images, with targets, domains and losses; ``dtype`` is autocast's, or None.

    ``parts`` remembers from call to call in how many parts a batch fits into the GPU's memory. Afterwards the model is
    in the same mode as before. There is a single host sync, at the end.
    """
    collected = [pack(batch, logits) for batch, ((logits, _),) in _run_batches([model], batches, device, dtype, parts)]
    return unpack(torch.cat(collected, dim=1))


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
    return collect_outputs_of([model], batches, device, dtype, images, split)[0]


@torch.inference_mode()
def collect_outputs_of(
    models: Sequence[Classifier],
    batches: Iterable[Batch],
    device: torch.device,
    dtype: torch.dtype | None,
    images: Manifest,
    split: str,
) -> list[Outputs]:
    """Do what `collect_outputs` does for each of ``models``, and make the images only once."""
    labels: list[tuple[Tensor, ...]] = []
    results: list[list[tuple[Tensor, ...]]] = [[] for _ in models]
    for batch, outputs in _run_batches(models, batches, device, dtype):
        labels.append((batch["target"], batch["domain"], batch["index"]))
        for found, (logits, features) in zip(results, outputs, strict=True):
            found.append((logits.float(), features.float()))
    shared = _columns(labels)
    return [
        make_outputs(*shared, *_columns(found), classes=images.classes, domain_names=images.domains, split=split)
        for found in results
    ]


def _run_batches(
    models: Sequence[Classifier],
    batches: Iterable[Batch],
    device: torch.device,
    dtype: torch.dtype | None,
    parts: Parts | None = None,
) -> Iterator[tuple[Batch, list[tuple[Tensor, Tensor]]]]:
    """Yield each batch with every model's logits and features; afterwards the models are in the modes of before."""
    parts = parts or Parts()
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    for batch in batches:
        images = batch["images"].contiguous(memory_format=torch.channels_last)
        with autocast(device, dtype):
            outputs = parts.run(models, images)
        yield batch, outputs
    for model, mode in zip(models, modes, strict=True):
        model.train(mode)


def _columns(rows: Sequence[Sequence[Tensor]]) -> list[np.ndarray]:
    """Join the columns of batches; the first one waits for the device."""
    return [torch.cat(column).cpu().numpy() for column in zip(*rows, strict=True)]
