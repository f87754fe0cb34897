"""The resizing and the crop of evaluation as two matrix products, which every format can store and run.

It is the resampling of the image pipeline's ``mode="fused"`` and of Pillow's `resize` with a box: a triangle filter
that is as wide as an output pixel, or as an input pixel if the image is enlarged. Unlike Pillow, it does not round to
whole grey levels, neither between the two directions nor at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa.images import Transforms

SMALLEST = 32  # side of the smallest photograph: in a smaller one the filter would reach beyond the middle half


def resize_and_crop(photographs: Tensor, transforms: Transforms, dtype: torch.dtype) -> Tensor:
    """Resample the part of photographs that evaluation shows.

    Args:
        photographs: uint8 [n, H, W, 3], upright RGB; H and W at least `SMALLEST`.
        transforms: provides the sizes.
        dtype: float32 or float64, of the products.

    Returns:
        Grey levels from 0 to 255, [n, 3, size, size].
    """
    height, width = photographs.shape[1:3]
    # The middle half contains all that is shown, in every direction; the rest is not converted to floating point.
    top, left = height // 4, width // 4
    middle = photographs[:, top : height - top, left : width - left].to(dtype)
    count, rows, columns, channels = middle.shape
    down = _weights(height, transforms)[:, top : height - top].to(dtype)
    across = _weights(width, transforms)[:, left : width - left].to(dtype)
    resized = (down @ middle.reshape(count, rows, columns * channels)).reshape(count, -1, columns, channels)
    return (resized.permute(0, 1, 3, 2) @ across.t()).permute(0, 2, 1, 3)


def _weights(length: int, transforms: Transforms) -> Tensor:
    """Return the weight of each of ``length`` pixels in each pixel of the result, float64 [size, length]."""
    pixels = torch.arange(length, dtype=torch.float64)
    scale = (pixels[-1:] + 1) / transforms.resize  # a tensor, because the length varies from call to call
    offset = transforms.crop_offset + transforms.evaluation_offset
    centres = (torch.arange(transforms.size, dtype=torch.float64)[:, None] + (offset + 0.5)) * scale
    weights = (1 - (pixels + 0.5 - centres).abs() / scale.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)
