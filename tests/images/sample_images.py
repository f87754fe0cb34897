"""Images, manifests and comparisons shared by these tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from fastccsa.collections.manifest import Manifest
from fastccsa.images import Transforms

SHAPES = [(150, 200), (243, 321), (60, 90), (400, 300)]


def texture(height: int, width: int, seed: int, noise: float = 10.0) -> Image.Image:
    """Return an image with smooth colours, sharp edges and noise, which are hard to resample and decode."""
    rng = np.random.default_rng(seed)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 7, 3)).astype(np.uint8))
    pixels = np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC)).astype(float)
    row, column = np.mgrid[:height, :width]
    pixels += 30 * np.sign(np.sin(column / 7) * np.sin(row / 9))[..., None]
    pixels += rng.normal(0, noise, (height, width, 1))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def make_manifest(folder: Path, count: int = 22) -> Manifest:
    """Write ``count`` JPEGs that cycle through 3 classes in 2 domains: 6 groups of 3 or 4 images."""
    rows = []
    for number in range(count):
        path = folder / f"image{number:02d}.jpg"
        texture(*SHAPES[number % len(SHAPES)], seed=number).save(path, quality=90)
        rows.append((path.name, "abc"[number % 3], "PQ"[number // 3 % 2], str(number), "train"))
    table = pd.DataFrame(rows, columns=["image", "label", "domain", "group", "split"])
    return Manifest(table, folder)


def grey_levels(images: torch.Tensor, transforms: Transforms) -> torch.Tensor:
    """Undo the normalisation, to values from 0 to 255."""
    mean = torch.tensor(transforms.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(transforms.std, device=images.device).view(3, 1, 1)
    return 255 * (images * std + mean)


def assert_same(
    first: Iterator[dict[str, torch.Tensor]] | list[dict[str, torch.Tensor]],
    second: Iterator[dict[str, torch.Tensor]] | list[dict[str, torch.Tensor]],
) -> None:
    """Assert that the batches are bit for bit the same, and that there is at least one."""
    first, second = list(first), list(second)
    assert len(first) == len(second) > 0
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            assert torch.equal(left[key], right[key]), key
