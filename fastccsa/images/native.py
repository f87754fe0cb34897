"""The transforms by fastccsa's own code: it decodes no more of a JPEG than an image is made of, and resamples once.

Of a baseline JPEG the codes above the region are read (they cannot be leapt over), but nothing is computed of
them; where the region is reduced, whole squares of its pixels are averaged before they are ever made. Other
files, and those that this decoder finds broken, are decoded by Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastccsa.images import _jpeg
from fastccsa.images.augment import augment_picture, symmetries
from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.threaded import ThreadedBackend
from fastccsa.images.transforms import IntArray, Regions, Transforms, Views, find_regions, find_scales


@dataclass(frozen=True)
class _Plan:
    """What is worked out for a whole batch: how far decoding reduces each image, its region, and its symmetry."""

    scales: IntArray
    regions: Regions
    symmetries: IntArray


class NativeBackend(ThreadedBackend):
    """Makes batches on the CPU, each image resampled once (``mode="fused"``).

    Args:
        reduce: whether pixels may be averaged while decoding, where the region is reduced. Without, decoded
            pixels are libjpeg's to the bit.

    The other arguments are `ThreadedBackend`'s.
    """

    def __init__(
        self,
        source: ImageSource,
        transforms: Transforms,
        device: torch.device,
        num_threads: int,
        prefetch: int,
        reduce: bool = True,
    ) -> None:
        super().__init__(source, transforms, device, num_threads, prefetch)
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
            top, left, height, width = plan.regions.decode[row].tolist()
            pixels = _jpeg.decode_region(image.data, top, left, height, width, int(plan.scales[row]))
        if pixels is None:
            whole = np.asarray(self._decode(batch, row))
            if batch.images[row] is not image:  # broken; the one in its place is made as where it was asked for
                return self._make(batch, row, self._plan(batch), out)
            pixels, region = self._part_of(whole, batch.views.take([row]))
        symmetry, cutout = int(plan.symmetries[row]), batch.views.cutout[row].tolist()
        augment_picture(torch.from_numpy(pixels), region.tolist(), symmetry, cutout, self._transforms, out)

    def _part_of(self, whole: np.ndarray, view: Views) -> tuple[np.ndarray, np.ndarray]:
        """The pixels that the view's image is made of, and the region in them."""
        size = np.array([self._transforms.size] * 2)
        regions = find_regions(self._transforms, view, np.array([whole.shape[:2]]), size)
        top, left, height, width = regions.decode[0]
        return np.ascontiguousarray(whole[top : top + height, left : left + width]), regions.resample[0]
