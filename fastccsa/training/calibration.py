"""The typical distance between the features of a model, which the margin can refer to."""

from __future__ import annotations

import numpy as np
import torch

from fastccsa.collections import Manifest
from fastccsa.evaluation.distances import cross_domain_distances
from fastccsa.evaluation.evaluate import collect_outputs, evaluation_loader
from fastccsa.models import Classifier
from fastccsa.runs.config import TrainConfig
from fastccsa.system.errors import InputError

PER_GROUP = 16  # images of each domain and class


def typical_distance(
    model: Classifier, training: Manifest, config: TrainConfig, device: torch.device, dtype: torch.dtype | None
) -> float:
    """Measure the median distance between the features of two training images of different domains and classes.

    At most `PER_GROUP` images of each domain and class are used, drawn with the run's seed, without augmentation. If
    all images of different domains have the same class, pairs of one class are used.

    Raises:
        InputError: all features are equal, or they are not finite.
    """
    part = training.take(_balanced(training, config.seed))
    with evaluation_loader(
        part, device, config.size, workers=config.workers, image_backend=config.image_backend
    ) as loader:
        outputs = collect_outputs(model, loader.epoch(0), device, dtype, part, "train")
    if config.balance.normalize_features:
        norms = np.linalg.norm(outputs.features, axis=1, keepdims=True)
        outputs.features[:] /= np.maximum(norms, np.finfo(np.float32).tiny)
    distances = cross_domain_distances(outputs)
    median = float(np.median(distances.different if len(distances.different) else distances.same))
    if not 0 < median < np.inf:
        raise InputError(
            f"the median distance between the features of the training images is {median} before training: start from "
            "other weights, or choose the margin in the units of the features (margin_unit feature)"
        )
    return median


def _balanced(training: Manifest, seed: int) -> np.ndarray:
    """Mark the images that are used, [n]."""
    keep = np.zeros(len(training), dtype=bool)
    order = np.random.default_rng(seed).permutation(len(training))
    for _, group in training.table.iloc[order].groupby(["domain", "label"]):
        keep[group.index[:PER_GROUP]] = True
    return keep
