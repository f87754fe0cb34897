"""The parity table: how far each way's images lie from the literal composition of torchvision's transforms."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastccsa.benchmarking.images.files import Files
from fastccsa.benchmarking.images.measure import Settings, collections
from fastccsa.images import ImageLoader, Transforms, Views
from fastccsa.images.decode import decode
from fastccsa.images.torchvision_backend import exact, fused, normalise
from fastccsa.sampling import ImageSampler

__all__ = ["parity_table"]

WAYS: dict[str, dict[str, Any]] = {
    "fused": {"mode": "fused", "backend": "native"},
    "fused, DALI": {"mode": "fused", "backend": "dali"},
    "fused, torchvision": {"mode": "fused", "backend": "torchvision"},
    "exact, DALI": {"mode": "exact", "backend": "dali"},
    "exact, torchvision": {"mode": "exact", "backend": "torchvision"},
    "disk": {"cache": "disk"},
    "ram": {"cache": "ram"},
}
ON_A_GPU: dict[str, dict[str, Any]] = {
    "fused, DALI on the GPU": {"mode": "fused", "backend": "dali", "device": "cuda"},
    "exact, DALI on the GPU": {"mode": "exact", "backend": "dali", "device": "cuda"},
    "gpu": {"cache": "gpu", "device": "cuda"},
}
_LEGEND = (
    "Grey levels (0 to 255), mean and largest difference over all pixels of the images. two steps: resize, crop, "
    "resized crop, as the paper's text has it; one step: both resizes composed, which is what `fused` means to be. "
    "Evaluation has one resize in either."
)

Compose = Callable[[Image.Image, Transforms, Views, int], Image.Image]


def parity_table(settings: Settings) -> str:
    """Compare every way on the same files and random parameters; ``settings.files`` of each collection."""
    ways = WAYS | (ON_A_GPU if torch.cuda.is_available() else {})
    lines = [f"{'':34} {'training':^39}   {'evaluation':^18}", f"{'':34} {'of two steps':^18}   {'of one step':^18}"]
    lines.append(f"{'':34}" + 3 * f" {'mean':>8} {'largest':>9}  ")
    with tempfile.TemporaryDirectory() as folder:
        for files in collections(settings, Path(folder)):
            lines.append(files.title)
            training, evaluation = _views(files)
            references = [(training, exact), (training, fused), (evaluation, exact)]
            expected = [_literal(files, views, compose) for views, compose in references]
            for name, options in ways.items():
                options = {"device": "cpu", "num_threads": settings.threads, **options}
                made = [_made(files, augment, options) for augment in (True, False)]
                differences = ((made[k] - wanted).abs() for k, wanted in zip((0, 0, 1), expected, strict=True))
                cells = (f" {float(d.mean()):8.3f} {float(d.max()):9.2f}  " for d in differences)
                lines.append(f"  {name:32}" + "".join(cells).rstrip())
    if not torch.cuda.is_available():
        lines.append(f"  {', '.join(ON_A_GPU)}: not measured, no GPU here")
    return "\n".join([*lines, "", _LEGEND])


def _views(files: Files) -> tuple[Views, Views]:
    transforms, count = Transforms(), len(files.paths)
    return transforms.draw(0, 0, np.arange(count), 1), transforms.evaluation(count)


def _made(files: Files, augment: bool, options: dict[str, Any]) -> Tensor:
    manifest = files.manifest(rows=len(files.paths))
    sampler = ImageSampler(manifest.labels, num_classes=1, batch_size=len(manifest), shuffle=False)
    with ImageLoader(manifest, sampler, augment, cache_dir=files.folder / "stores", **options) as loader:
        return _grey_levels(next(loader.epoch(0))["images"].cpu())


def _literal(files: Files, views: Views, compose: Compose) -> Tensor:
    transforms = Transforms()
    images = (decode(np.fromfile(path, np.uint8)) for path in files.paths)
    composed = (normalise(compose(image, transforms, views, row), transforms) for row, image in enumerate(images))
    return _grey_levels(torch.stack(list(composed)))


def _grey_levels(images: Tensor) -> Tensor:
    transforms = Transforms()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transforms.mean, transforms.std))
    return 255 * (images * std + mean)
