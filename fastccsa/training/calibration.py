"""The typical distance between the features of a model, which the margin can refer to."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from fastccsa.collections import Manifest
from fastccsa.images import ImageLoader, Transforms
from fastccsa.losses.terms import unit_features
from fastccsa.models import Classifier
from fastccsa.runs.config import TrainConfig
from fastccsa.sampling import ImageSampler
from fastccsa.system.errors import InputError
from fastccsa.training.ranks import Ranks
from fastccsa.training.step import make_forward

PER_GROUP = 16  # images of each domain and class


def shared_distance(
    model: Classifier,
    training: Manifest,
    config: TrainConfig,
    device: torch.device,
    dtype: torch.dtype | None,
    ranks: Ranks,
) -> float:
    """Return the first rank's `typical_distance` on all ranks. Collective.

    Only the first rank decodes the images for it, unless BatchNorm takes its statistics from all ranks together.
    """
    measures = ranks.is_first or config.sync_batchnorm
    return ranks.gather(typical_distance(model, training, config, device, dtype) if measures else 0.0)[0]


def typical_distance(
    model: Classifier, training: Manifest, config: TrainConfig, device: torch.device, dtype: torch.dtype | None
) -> float:
    """Measure the median distance between the features of two training images of different domains and classes.

    At most `PER_GROUP` images of each domain and class are used, drawn with the run's seed, without augmentation, in
    mixed batches. As in a training step, BatchNorm takes its statistics from the batch: those of a network from random
    weights are not known yet. If all images of different domains have the same class, pairs of one class are used.
    Images are decoded even if the run caches crops, which differ a little: the margin does not depend on the cache. The
    model and torch's random state do not change.

    Raises:
        InputError: all features are equal, or they are not finite.
    """
    part = training.take(_balanced(training, config.seed))
    batch_size = max(2, config.batch_size)
    sampler = ImageSampler(
        part.labels,
        num_classes=len(part.classes),
        batch_size=batch_size,
        seed=config.seed,
        drop_last=len(part) % batch_size == 1,  # BatchNorm cannot use a single image
    )
    loader = ImageLoader(
        part,
        sampler,
        augment=False,
        device=device,
        transforms=Transforms(size=config.size),
        backend=config.image_backend,
        num_threads=config.workers or None,
    )
    forward = make_forward(deepcopy(model).train(), device, dtype)
    with loader, torch.no_grad(), torch.random.fork_rng():
        seen = [(forward(batch["images"])[1], batch["target"], batch["domain"]) for batch in loader.epoch(0)]
    features, targets, domains = (torch.cat(column) for column in zip(*seen, strict=True))
    if config.balance.normalize_features:
        features = unit_features(features)
    median = _median(features.double().cpu().numpy(), targets.cpu().numpy(), domains.cpu().numpy())
    if not 0 < median < np.inf:
        raise InputError(
            f"the median distance between the features of the training images is {median} before training: start from "
            "other weights, or choose the margin in the units of the features (margin_unit feature)"
        )
    return median


def _median(features: NDArray[np.float64], targets: NDArray[np.int64], domains: NDArray[np.int64]) -> float:
    distances = pairwise_distances(features)
    across = domains[:, None] != domains
    different = across & (targets[:, None] != targets)
    return float(np.median(distances[different if different.any() else across]))


def _balanced(training: Manifest, seed: int) -> NDArray[np.bool_]:
    """Mark the images that are used, [n]."""
    keep = np.zeros(len(training), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(training))
    for _, group in training.table.iloc[order].groupby(["domain", "label"]):
        keep[group.index[:PER_GROUP]] = True
    return keep
