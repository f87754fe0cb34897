"""The fixed images by which channels are chosen, and the loss of the run on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fastccsa.collections import Manifest
from fastccsa.collections.stratify import stratified_subset
from fastccsa.evaluation.evaluate import evaluation_loader
from fastccsa.pruning.discrimination import Loss
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.system.errors import InputError
from fastccsa.training import build_objective


@dataclass(frozen=True)
class Part:
    """Some of a subset's images, ``begin`` to ``end`` (excluded), and L_S from their logits and features."""

    begin: int
    end: int
    loss: Loss


@dataclass(frozen=True)
class Subset:
    """The images channels are chosen by, as evaluation sees them, not augmented.

    Attributes:
        images: float32 [n, 3, S, S], normalised, on the device.
        discrimination: those by which the gradient of L_S is computed. L_S is the classification part of the run's own
            loss, on the pairs that its sampler makes of them. (Alignment, of the order of the margin squared, would
            silence the reconstruction in the joint loss.)
        check: others, as many, by which its value is.
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
    """Load the subset of ``images.training``; its pairs and their weights are drawn as in training.

    Args:
        config: the run's training.
        images: the run's.
        count: how many images to take at most.
        discrimination: how many of them the discrimination loss looks at: half for its gradient, half for its value.
        seed: of the choice.
        device: where to put them.
        width: of the network's features.

    Raises:
        InputError: an image cannot be read, or there are too few for the discrimination loss to draw pairs of.
    """
    chosen = stratified_subset(images.training, count, seed)
    first, second, rest = deal(chosen, discrimination)
    chosen = chosen.take(np.concatenate([first, second, rest]))
    with evaluation_loader(
        chosen, device, config.size, workers=config.workers, image_backend=config.image_backend
    ) as loader:
        pixels = torch.cat([batch["images"] for batch in loader.epoch(0)]).contiguous()

    def part(begin: int, end: int) -> Part:
        looked_at = replace(images, training=chosen.take(np.arange(begin, end)))
        try:
            return Part(begin, end, _classification_loss(config, looked_at, device, width))
        except InputError as error:
            raise InputError(
                f"discrimination_images is {discrimination}, and half of them are too few to draw pairs of ({error}): "
                "give more"
            ) from error

    return Subset(pixels, part(0, len(first)), part(len(first), len(first) + len(second)))


def deal(manifest: Manifest, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Deal the first ``count`` images into two hands of the same domains and classes; the rest stays.

    Returns:
        Positions in ``manifest`` of the first hand, of the second, and of the rest.
    """
    cells = manifest.domain_indices * len(manifest.classes) + manifest.labels
    order = np.argsort(cells[:count], kind="stable")
    return order[::2], order[1::2], np.arange(len(order), len(manifest))


def _classification_loss(config: TrainConfig, images: RunImages, device: torch.device, width: int) -> Loss:
    """Make the loss of all of ``images.training`` in one batch, by the sampler and the weights of the objective."""
    # Of the objective's loader only the sampler is used.
    config = replace(config, batch_size=max(2, len(images.training)), cache="none", memory=0, seed=0)
    objective = build_objective(config, images, device, width)
    with objective.loader as loader:
        drawn = loader.sampler.batch(0, 0)
        labels = torch.from_numpy(images.training.labels).to(device)
    first, second = drawn if isinstance(drawn, tuple) else (drawn, drawn)
    index1, index2 = torch.as_tensor(first, device=device), torch.as_tensor(second, device=device)
    batch = {"images": index1, "images1": index1, "images2": index2}
    batch |= {"target": labels[index1], "target1": labels[index1], "target2": labels[index2]}

    def terms(logits: Tensor, features: Tensor) -> Tensor:
        # Where the objective expects images it is given their numbers, and in place of a network their results.
        return objective(lambda index: (logits[index], features[index]), batch)

    return classification(terms)


def classification(terms: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make the loss of classification alone, a mean over images, from a function that computes an objective's terms."""

    def loss(*arguments: Tensor) -> Tensor:
        values = terms(*arguments)
        # A baseline's loss is classification; of CCSA's terms the second and third are, for either image of a pair.
        return values[0] if len(values) == 1 else values[1:3].mean()

    return loss
