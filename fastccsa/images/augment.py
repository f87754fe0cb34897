"""Augmented images, made directly from a store of crops by one fused op, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fastccsa.images.crop_file import CropFile
from fastccsa.images.transforms import IntArray, Transforms, Views
from fastccsa.ops.augment import augment_file_out, augment_out, augment_picture_out

__all__ = ["PACKED_COLUMNS", "augment", "augment_file", "augment_picture", "pack_views", "symmetries"]

PACKED_COLUMNS = 10  # row, window (4), cutout (4), symmetry


def symmetries(views: Views) -> IntArray:
    """Encode the symmetries of the views for the ops, int64 [B]: bit 0 upside down, 1 mirrored, 2 then transposed."""
    flips, transpose = views.symmetry
    return flips[:, 0] + 2 * flips[:, 1] + 4 * transpose


def pack_views(rows: IntArray, views: Views) -> Tensor:
    """Pack the parameters of the op into one tensor, so that a single copy moves them to a GPU: int64 [B, 10]."""
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
    """Make a batch of finished images from stored crops in one pass.

    Each image is a window of a crop, resampled once (antialiased bilinear, as in Pillow and torchvision), flipped and
    turned, blanked in its cutout and normalised. On CUDA this is a single kernel without host syncs and, with ``out``,
    without allocations, so it can be captured in a graph. A view out of bounds gives an image of NaN on CUDA, and an
    error on the CPU.

    Args:
        store: uint8 [n, crop, crop, 3], contiguous.
        packed: int64 [B, 10] on the same device, from `pack_views`.
        transforms: size and normalisation.
        dtype: torch.float32 or torch.bfloat16.
        channels_last: return the images in torch.channels_last memory format.
        out: tensor [B, 3, size, size] to write to; ``dtype`` and ``channels_last`` are then ignored.

    Returns:
        The images, [B, 3, size, size].

    Raises:
        RuntimeError: a tensor has the wrong shape, dtype or device, or (on the CPU) a view is out of bounds.
    """
    _check_packed(packed)
    if out is None:
        shape = (len(packed), 3, transforms.size, transforms.size)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        out = torch.empty(shape, dtype=dtype, device=store.device, memory_format=layout)
    if len(packed):  # in the last step of an epoch, a rank may get no images
        augment_out(images=out, store=store, **_unpack(packed), **_colours(transforms))
    return out


def augment_file(crops: CropFile, packed: Tensor, transforms: Transforms, out: Tensor | None = None) -> Tensor:
    """Do what `augment` does on the CPU, with crops in a file, of which only the windows are read.

    Args:
        crops: the file of crops.
        packed: int64 [B, 10] on the CPU, from `pack_views`.
        transforms: size and normalisation.
        out: tensor [B, 3, size, size] to write to, float32 or bfloat16; None makes one of float32.

    Returns:
        The images, [B, 3, size, size].

    Raises:
        InputError: the file was cut short, or cannot be read.
        RuntimeError: as for `augment`.
    """
    _check_packed(packed)
    if out is None:
        out = torch.empty(len(packed), 3, transforms.size, transforms.size)
    rows, side = crops.shape[:2]
    if len(packed) and not augment_file_out(out, crops.fileno(), rows, side, **_unpack(packed), **_colours(transforms)):
        raise crops.cut_short()
    return out


def _check_packed(packed: Tensor) -> None:
    if packed.ndim != 2 or packed.shape[1] != PACKED_COLUMNS:
        raise RuntimeError(f"packed must have {PACKED_COLUMNS} columns, but its shape is {list(packed.shape)}")


def _unpack(packed: Tensor) -> dict[str, Tensor]:
    return {
        "rows": packed[:, 0],
        "windows": packed[:, 1:5],
        "symmetries": packed[:, 9],
        "cutouts": packed[:, 5:9],
    }


def augment_picture(
    picture: Tensor, region: Sequence[float], symmetry: int, cutout: Sequence[int], transforms: Transforms, out: Tensor
) -> None:
    """Make one finished image from a region of a picture on the CPU, as `augment` does from a window of a crop.

    The resampling filter reaches across the border of the region, as in Pillow's ``resize(box=...)``.

    Args:
        picture: uint8 [height, width, 3], contiguous.
        region: top, left, bottom, right in (fractional) pixels, within the picture.
        symmetry: from `symmetries`.
        cutout: top, left, height, width.
        transforms: size and normalisation.
        out: tensor [3, size, size] to write to, float32 or bfloat16.

    Raises:
        RuntimeError: a tensor has the wrong shape, dtype or device, or a value is out of bounds.
    """
    augment_picture_out(
        image=out, picture=picture, region=region, symmetry=symmetry, cutout=cutout, **_colours(transforms)
    )


def _colours(transforms: Transforms) -> dict[str, list[float]]:
    colours = {"mean": transforms.mean, "std": transforms.std, "fill": transforms.fill}
    return {name: list(map(float, values)) for name, values in colours.items()}
