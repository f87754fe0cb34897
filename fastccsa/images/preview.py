"""A picture with the augmented pairs that the network sees, each titled with class and domain."""

from __future__ import annotations

import os

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from fastccsa.collections.manifest import Manifest
from fastccsa.images.loaders import PairLoader
from fastccsa.images.transforms import Transforms
from fastccsa.sampling import PairSampler
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

_PAIRS_ACROSS = 8
_INCHES = 1.5  # side of an image
_SAME, _DIFFERENT = "#00723b", "#8a2b06"  # colour of the titles by whether the classes are the same


def draw_pairs(
    manifest: Manifest,
    out: str | os.PathLike[str],
    pairs: int = 8,
    primary: str | None = None,
    transforms: Transforms = Transforms(),  # noqa: B008  (frozen)
    seed: int = 0,
    backend: str = "auto",
) -> None:
    """Draw the first pairs of an epoch as a PNG, as returned by the pair loader but without normalisation.

    The images of a pair are one above the other, titled with class and domain. Titles are green if the classes are the
    same, and brown if they differ.

    Args:
        manifest: the images to draw pairs from.
        out: path of the PNG.
        pairs: number of pairs; no more are drawn than an epoch has.
        primary: key of the primary domain; None for HAM, or the manifest's first domain if it has no HAM.
        transforms: the transforms.
        seed: seed of sampling and augmentation.
        backend: "auto", "native", "dali" or "torchvision".

    Raises:
        InputError: there is no such domain, no pairs can be drawn, no image can be read, or ``out`` cannot be written.
    """
    if pairs < 1:
        raise InputError(f"pairs is {pairs}; give 1 or more")
    primary = primary or ("HAM" if "HAM" in manifest.domains else manifest.domains[0])
    if primary not in manifest.domains:
        raise InputError(f"primary domain {primary!r} is not in the manifest, which has {', '.join(manifest.domains)}")
    sampler = PairSampler(
        manifest.labels,
        manifest.domain_indices,
        primary=manifest.domains.index(primary),
        num_classes=len(manifest.classes),
        batch_size=pairs,
        seed=seed,
    )
    with PairLoader(manifest, sampler, transforms=transforms, backend=backend) as loader:
        batch = next(loader.epoch(0))
    figure = _figure(batch, manifest, transforms)
    with write_atomically(out) as temporary:
        figure.savefig(temporary, format="png", dpi=max(72, round(transforms.size / _INCHES)))


def _figure(batch: dict[str, Tensor], manifest: Manifest, transforms: Transforms) -> Figure:
    count = len(batch["target1"])
    across = min(count, _PAIRS_ACROSS)
    down = 2 * -(-count // across)
    figure = Figure(figsize=(across * _INCHES, down * (_INCHES + 0.25)), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for cell in axes.flat:
        cell.set_axis_off()
    for pair in range(count):
        same = batch["target1"][pair] == batch["target2"][pair]
        for side in (1, 2):
            cell = axes[2 * (pair // across) + side - 1, pair % across]
            cell.imshow(_grey_levels(batch[f"images{side}"][pair], transforms))
            label, domain = batch[f"target{side}"][pair], batch[f"domain{side}"][pair]
            title = f"{manifest.classes[label]} · {manifest.domains[domain]}"
            cell.set_title(title, fontsize=8, color=_SAME if same else _DIFFERENT)
    return figure


def _grey_levels(image: Tensor, transforms: Transforms) -> np.ndarray:
    """Undo the normalisation, and return the image as uint8 [size, size, 3]."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transforms.mean, transforms.std))
    return (255 * (image * std + mean)).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
