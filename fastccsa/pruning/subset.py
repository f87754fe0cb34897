"""The fixed images on which channels are chosen, and the run's loss on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fastccsa.collections import Manifest
from fastccsa.collections.stratify import stratified_subset
from fastccsa.evaluation.inference import evaluation_loader
from fastccsa.pruning.discrimination import Loss
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.system.errors import InputError
from fastccsa.training import build_objective


def default_images(size: int) -> int:
    """Return how many images with this side length in pixels the least squares need: the pixels of 512 at 224 px.

    The weights of a ResNet-18's widest layer have 4608 entries per output. 512 images at 64 px have only 2048 positions
    there, which half of its channels would reproduce exactly without reproducing those of other images.
    """
    return math.ceil(512 * (224 / size) ** 2)


@dataclass(frozen=True)
class Part:
    """The images ``begin`` to ``end`` (exclusive) of a subset, and L_S as a function of their logits and features."""

    begin: int
    end: int
    loss: Loss


@dataclass(frozen=True)
class Subset:
    """The images on which channels are chosen, with the transforms of evaluation, not augmented.

    Attributes:
        images: float32 [n, 3, S, S], normalised, on the device.
        discrimination: the images on which the gradient of L_S is computed. L_S is the classification part of the run's
            loss, on pairs that its sampler draws from them. (The alignment, of the order of the margin squared, would
            dominate the reconstruction in the joint loss.)
        check: the same number of other images, on which its value is computed.
    """

    images: Tensor
    discrimination: Part
    check: Part


def load_subset(
    config: TrainConfig,
    images: RunImages,
    count: int,
    discrimination: int,
    seed: int,
    device: torch.device,
    width: int,
) -> Subset:
    """Load a subset of ``images.training``; its pairs are drawn and weighted as in training.

    Args:
        config: the run's configuration.
        images: the run's images.
        count: maximum number of images.
        discrimination: number of these on which the discrimination loss is computed: half for its gradient, half for
            its value.
        seed: seed of the choice.
        device: where to put the images.
        width: width of the network's features.

    Raises:
        InputError: an image cannot be read, or there are too few images to draw pairs from.
    """
    chosen = stratified_subset(images.training, count, seed)
    first, second, rest = deal(chosen, discrimination)
    chosen = chosen.take(np.concatenate([first, second, rest]))
    with evaluation_loader(
        chosen, device, config.size, workers=config.workers, image_backend=config.image_backend
    ) as loader:
        pixels = torch.cat([batch["images"] for batch in loader.epoch(0)]).contiguous()

    def part(begin: int, end: int) -> Part:
        part_images = replace(images, training=chosen.take(np.arange(begin, end)))
        try:
            return Part(begin, end, _classification_loss(config, part_images, device, width))
        except InputError as error:
            raise InputError(
                f"discrimination_images is {discrimination}, and half of them are too few to draw pairs from "
                f"({error}): give more"
            ) from error

    return Subset(pixels, part(0, len(first)), part(len(first), len(first) + len(second)))


def deal(manifest: Manifest, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the first ``count`` images into two halves with the same domains and classes.

    Returns:
        Positions in ``manifest`` of the first half, of the second half, and of all other images.
    """
    cells = manifest.domain_indices * len(manifest.classes) + manifest.labels
    order = np.argsort(cells[:count], kind="stable")
    return order[::2], order[1::2], np.arange(len(order), len(manifest))


def _classification_loss(config: TrainConfig, images: RunImages, device: torch.device, width: int) -> Loss:
    """Return the loss of all of ``images.training`` in one batch, with the objective's sampler and weights."""
    # Of the objective's loader only the sampler is used.
    config = replace(config, batch_size=max(2, len(images.training)), cache="none", memory=0, seed=0)
    if config.is_baseline:  # whatever else its algorithm minimises
        config = replace(config, algorithm="erm", strength=None)
    objective = build_objective(config, images, device, width)
    with objective.loader as loader:
        drawn = loader.sampler.batch(0, 0)
        labels = torch.from_numpy(images.training.labels).to(device)
        domains = torch.from_numpy(images.training.domain_indices).to(device)
    first, second = drawn if isinstance(drawn, tuple) else (drawn, drawn)
    index1, index2 = torch.as_tensor(first, device=device), torch.as_tensor(second, device=device)
    batch = {"images": index1, "images1": index1, "images2": index2, "domain": domains[index1]}
    batch |= {"target": labels[index1], "target1": labels[index1], "target2": labels[index2]}

    def terms(logits: Tensor, features: Tensor) -> Tensor:
        # In place of images the objective gets their indices, and in place of the network a look-up of its results.
        return objective(lambda index: (logits[index], features[index]), batch)

    return classification(terms)


def classification(terms: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the classification loss, a mean over images, from a function that computes an objective's terms."""

    def loss(*arguments: Tensor) -> Tensor:
        values = terms(*arguments)
        # A baseline's only term is classification; in CCSA it is the second and third, for the two images of a pair.
        return values[0] if len(values) == 1 else values[1:3].mean()

    return loss
