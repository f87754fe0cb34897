"""The transforms in fastccsa's own code, which decodes only the region of a JPEG that is used and resamples once.

In a baseline JPEG, the entropy codes above the region must be read, but no pixels are computed from them. If the region
is going to be reduced, squares of pixels are averaged during decoding. Pillow decodes all other files, and those that
this decoder finds broken.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fastccsa.images.augment import augment_picture, symmetries
from fastccsa.images.decode import EncodedImage
from fastccsa.images.jpeg import decode_region
from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.threaded_backend import ThreadedBackend
from fastccsa.images.transforms import IntArray, Regions, Transforms, Views, find_regions, find_scales


@dataclass(frozen=True)
class _Plan:
    """Per image of a batch: the factor by which decoding reduces it, its region, and its symmetry."""

    scales: IntArray
    regions: Regions
    symmetries: IntArray


class NativeBackend(ThreadedBackend):
    """Makes batches on the CPU, with each image resampled once (``mode="fused"``).

    Args:
        reduce: allow averaging pixels while decoding, if the region is going to be reduced. If False, decoded pixels
            are bitwise equal to libjpeg's.

    Other args: as for `ThreadedBackend`.
    """

    def __init__(
        self,
        source: ImageSource,
        transforms: Transforms,
        device: torch.device,
        *,
        num_threads: int,
        prefetch: int,
        reduce: bool = True,
    ) -> None:
        super().__init__(source, transforms, device, num_threads=num_threads, prefetch=prefetch)
        self._reduce = reduce

    def _plan(self, batch: EncodedBatch) -> _Plan:
        size = np.array([self._transforms.size] * 2)
        scales = np.ones(len(batch), np.int64)
        if self._reduce:
            scales = find_scales(self._transforms, batch.views, batch.shapes)
        regions = find_regions(self._transforms, batch.views, batch.shapes, size, scales)
        return _Plan(scales, regions, symmetries(batch.views))

    def _make(self, batch: EncodedBatch, row: int, plan: _Plan, out: Tensor) -> None:
        image, region = batch.images[row], plan.regions.resample[row]
        pixels = None
        if image.upright:
            pixels = _decode_region(image, plan.regions.decode[row], int(plan.scales[row]))
        if pixels is None:
            whole = self._decode(batch, row)
            if batch.images[row] is not image:  # it was broken: plan and make its replacement like any other image
                return self._make(batch, row, self._plan(batch), out)
            pixels, region = self._part_of(whole, batch.views.take([row]))
        augment_picture(
            torch.from_numpy(pixels),
            region=region.tolist(),
            symmetry=int(plan.symmetries[row]),
            cutout=batch.views.cutout[row].tolist(),
            transforms=self._transforms,
            out=out,
        )

    def _part_of(self, whole: Image.Image, view: Views) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels that the view needs, and the region within them."""
        size = np.array([self._transforms.size] * 2)
        regions = find_regions(self._transforms, view, np.array([whole.size[::-1]]), size)
        top, left, height, width = regions.decode[0].tolist()
        # Cropped by Pillow, because it copies all pixels that it hands out.
        part = np.array(whole.crop((left, top, left + width, top + height)))
        return part, regions.resample[0]


def _decode_region(image: EncodedImage, region: IntArray, scale: int) -> np.ndarray | None:
    """Decode a region with fastccsa's own decoder; None if it cannot read the file."""
    # Images that are not upright do not get here, so the size is that in the file as Pillow reads it.
    return decode_region(image.data, region.tolist(), scale, size=(image.height, image.width))
