"""The transforms in torchvision and Pillow, one image at a time.

`exact` follows the paper step by step; it is the reference for all other backends. With `TorchvisionBackend`, the
loaders work without DALI.
"""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.threaded_backend import ThreadedBackend
from fastccsa.images.transforms import Transforms, Views


def exact(image: Image.Image, transforms: Transforms, views: Views, row: int) -> Image.Image:
    """Apply the paper's steps up to normalisation to an upright RGB image; the result is ``size`` x ``size``."""
    top, left, height, width = (int(value) for value in views.window[row])
    size = transforms.size
    image = centre_crop(image, transforms)
    image = F.resized_crop(image, top, left, height, width, [size, size], antialias=True)
    return _turn_and_blank(image, transforms, views, row)


def centre_crop(image: Image.Image, transforms: Transforms) -> Image.Image:
    """Apply the paper's steps that never change: resize, and crop the centre to ``crop`` x ``crop``."""
    side, offset = transforms.resize, transforms.crop_offset
    image = F.resize(image, [side, side], antialias=True)
    return F.crop(image, offset, offset, transforms.crop, transforms.crop)


def fused(image: Image.Image, transforms: Transforms, views: Views, row: int) -> Image.Image:
    """Apply the steps of `exact` with both resizes and both crops composed, so that the region is resampled once."""
    top, left, height, width = (int(value) for value in views.window[row])
    across, down = image.width / transforms.resize, image.height / transforms.resize
    top, left = top + transforms.crop_offset, left + transforms.crop_offset
    box = (left * across, top * down, (left + width) * across, (top + height) * down)
    image = image.resize((transforms.size, transforms.size), Image.Resampling.BILINEAR, box=box)
    return _turn_and_blank(image, transforms, views, row)


def normalise(image: Image.Image, transforms: Transforms) -> Tensor:
    """Convert grey levels to normalised float32 [3, size, size]."""
    tensor = F.to_dtype(F.to_image(image), torch.float32, scale=True)
    return F.normalize(tensor, list(transforms.mean), list(transforms.std)).as_subclass(Tensor)


def _turn_and_blank(image: Image.Image, transforms: Transforms, views: Views, row: int) -> Image.Image:
    upside_down, mirrored = views.flips[row]
    if upside_down:
        image = F.vertical_flip(image)
    if mirrored:
        image = F.horizontal_flip(image)
    image = F.rotate(image, 90.0 * int(views.turns[row]))  # exact: Pillow transposes
    top, left, height, width = (int(value) for value in views.cutout[row])
    image.paste(transforms.fill, (left, top, left + width, top + height))
    return image


class TorchvisionBackend(ThreadedBackend):
    """Makes batches with torchvision on the CPU, in worker threads (Pillow releases the GIL).

    Args:
        mode: "fused" or "exact".

    Other args: as for `ThreadedBackend`.
    """

    def __init__(
        self,
        source: ImageSource,
        transforms: Transforms,
        device: torch.device,
        mode: str,
        *,
        num_threads: int,
        prefetch: int,
    ) -> None:
        super().__init__(source, transforms, device, num_threads=num_threads, prefetch=prefetch)
        self._compose = {"exact": exact, "fused": fused}[mode]

    def _make(self, batch: EncodedBatch, row: int, plan: None, out: Tensor) -> None:
        image = self._decode(batch, row)
        out.copy_(normalise(self._compose(image, self._transforms, batch.views, row), self._transforms))


class TorchvisionCrops(ThreadedBackend):
    """Makes centre crops with torchvision: batches of uint8 [B, crop, crop, 3] on the CPU.

    Args: as for `ThreadedBackend`.
    """

    def __init__(self, source: ImageSource, transforms: Transforms, *, num_threads: int, prefetch: int) -> None:
        super().__init__(source, transforms, torch.device("cpu"), num_threads=num_threads, prefetch=prefetch)

    def _allocate(self, count: int) -> Tensor:
        return torch.empty(count, self._transforms.crop, self._transforms.crop, 3, dtype=torch.uint8)

    def _make(self, batch: EncodedBatch, row: int, plan: None, out: Tensor) -> None:
        crop = centre_crop(self._decode(batch, row), self._transforms)
        out.copy_(F.pil_to_tensor(crop).permute(1, 2, 0))
