"""Augmented images straight from a store of crops: one fused op, on the CPU or on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastccsa.images.transforms import IntArray, Transforms, Views
from fastccsa.ops.augment import augment_out, augment_picture_out

__all__ = ["PACKED_COLUMNS", "augment", "augment_picture", "pack_views", "symmetries"]

PACKED_COLUMNS = 10  # row, window (4), cutout (4), symmetry


def symmetries(views: Views) -> IntArray:
    """Number the views' symmetries as the ops do: bit 0 upside down, bit 1 mirrored, bit 2 then transposed."""
    flips, transpose = views.symmetry
    return flips[:, 0] + 2 * flips[:, 1] + 4 * transpose


def pack_views(rows: IntArray, views: Views) -> Tensor:
    """Put what the op needs to know into one tensor, so that one copy takes it to a GPU: int64 [B, 10]."""
    columns = [rows[:, None], views.window, views.cutout, symmetries(views)[:, None]]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(columns, axis=1, dtype=np.int64)))


def augment(
    store: Tensor,
    packed: Tensor,
    transforms: Transforms,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """Make a batch of finished images from stored crops, in one pass.

    Each image is its window of its crop, resampled once (antialiased bilinear, as Pillow's and torchvision's),
    turned by its symmetry, blanked by its cutout and normalised. On CUDA this is one kernel that allocates
    nothing and does not stop the stream, so it can be captured in a graph, with ``out`` given; a view out of
    bounds gives an image of NaN there, and an error on the CPU.

    Args:
        store: uint8 [n, crop, crop, 3], contiguous.
        packed: int64 [B, 10] on the same device, from `pack_views`.
        transforms: size and normalisation.
        dtype: torch.float32 or torch.bfloat16.
        channels_last: give the images torch.channels_last's memory format.
        out: [B, 3, size, size] to write to, instead of ``dtype`` and ``channels_last``.

    Returns:
        The images, [B, 3, size, size].

    Raises:
        RuntimeError: tensors of other shapes, dtypes or devices, or (CPU) a view out of bounds.
    """
    if packed.ndim != 2 or packed.shape[1] != PACKED_COLUMNS:
        raise RuntimeError(f"packed must have {PACKED_COLUMNS} columns, but its shape is {list(packed.shape)}")
    if out is None:
        shape = (len(packed), 3, transforms.size, transforms.size)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        out = torch.empty(shape, dtype=dtype, device=store.device, memory_format=layout)
    rows, windows, cutouts, symmetry = packed[:, 0], packed[:, 1:5], packed[:, 5:9], packed[:, 9]
    augment_out(out, store, rows, windows, symmetry, cutouts, *_colours(transforms))
    return out


def augment_picture(
    picture: Tensor, region: Sequence[float], symmetry: int, cutout: Sequence[int], transforms: Transforms, out: Tensor
) -> None:
    """Make one finished image of a region of a picture, on the CPU, as `augment` does of a window of a crop.

    Resampling reaches over the region's border, as Pillow's ``resize(box=...)`` does.

    Args:
        picture: uint8 [height, width, 3], contiguous.
        region: top, left, bottom, right in pixels, which may have fractions; within the picture.
        symmetry: from `symmetries`.
        cutout: top, left, height, width.
        transforms: size and normalisation.
        out: [3, size, size] to write to, float32 or bfloat16.

    Raises:
        RuntimeError: tensors of other shapes, dtypes or devices, or numbers out of bounds.
    """
    augment_picture_out(out, picture, region, symmetry, cutout, *_colours(transforms))


def _colours(transforms: Transforms) -> list[list[float]]:
    return [list(map(float, values)) for values in (transforms.mean, transforms.std, transforms.fill)]
