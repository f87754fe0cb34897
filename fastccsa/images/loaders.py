"""The loaders for pairs and for single images: batches of finished images on the training device."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastccsa.images.base_loader import BatchLabels, Loader
from fastccsa.images.transforms import IntArray, Transforms, Views

if TYPE_CHECKING:
    from fastccsa.collections.manifest import Manifest
    from fastccsa.sampling import BalancedSampler, ImageSampler, PairSampler

_FIRST, _SECOND = 1, 2  # streams of random numbers for first (or single) images and for second images


class PairLoader(Loader):
    """Yields batches of augmented pairs, chosen by the sampler, decoded and transformed, on the device.

    A batch is a dict of ``images1`` and ``images2`` ([B, 3, size, size], normalised), ``target1`` and
    ``target2`` (class), ``domain1`` and ``domain2``, and ``index1`` and ``index2`` (row of the manifest; all
    int64 [B]). The last batch of an epoch may be smaller. If a broken image was replaced, class, domain and index
    belong to the image shown.

    Args:
        manifest: the images; the sampler's indices are its rows.
        sampler: chooses the pairs; also provides seed, batch size, rank and world size.
        device: where the batches are made: "cpu", or a CUDA device, which then also decodes and transforms.
        cache: None decodes every image each time it is shown. Otherwise the part of the transforms that never
            changes is done once and kept in a store (270 kB per image at size 224), and images are made from the store
            with the views of ``mode="exact"``: "disk" reads the store from its file, "ram" copies it into memory, and
            "gpu" copies it to the device, which then makes the images. "sharded" does so too, but each process of
            torch.distributed's default group keeps a part, and they exchange the crops of each step; all must iterate
            together. The sampler's rank and world size must be those of the group.
        cache_dir: folder for stores; None for ``.fastccsa-cache`` next to the manifest or, if that lacks crops and
            cannot be written, ``$XDG_CACHE_HOME/fastccsa`` (``~/.cache/fastccsa``).
        transforms: the transforms.
        dtype: number type of the images: torch.float32 or, with a cache, torch.bfloat16. Each value is rounded once, so
            they are bit for bit what autocast to bfloat16 makes of float32 images.
        backend: the decoder. "native" is fastccsa's own decoder on the CPU (only ``mode="fused"``), "dali" is NVIDIA
            DALI on CPU or GPU, "torchvision" is slow but can do everything. "auto" is "native" on the CPU
            with ``mode="fused"``, and otherwise "dali" or, where DALI is not installed or fails, "native" for
            ``mode="fused"`` and "torchvision" for "exact". A store is made with DALI where it works, unless the backend
            is "torchvision".
        mode: "fused" resamples each image once, "exact" twice, exactly as in the paper. Ignored with a cache.
        on_error: "replace" shows another image in place of a broken one and names it in the log and in ``broken``;
            "raise" stops.
        prefetch: number of batches prepared ahead.
        num_threads: CPU threads for decoding. None uses this process's share of the CPUs, at most 16, or all of them
            while a store is made. Images are made from a store with torch's own threads.

    Raises:
        InputError: an argument is out of range, sampler and manifest have different sizes, the backend is "dali" and
            DALI is not installed (the message names the wheel to install) or fails, there is no image file, or the
            store does not fit on the disk or in memory.
    """

    _images_per_row = 2
    sampler: PairSampler

    def __init__(
        self,
        manifest: Manifest,
        sampler: PairSampler,
        *,
        device: str | torch.device = "cpu",
        cache: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        transforms: Transforms = Transforms(),  # noqa: B008  (frozen)
        dtype: torch.dtype = torch.float32,
        backend: str = "auto",
        mode: str = "fused",
        on_error: str = "replace",
        prefetch: int = 2,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(
            manifest,
            sampler,
            device=device,
            cache=cache,
            cache_dir=cache_dir,
            transforms=transforms,
            dtype=dtype,
            backend=backend,
            mode=mode,
            on_error=on_error,
            prefetch=prefetch,
            num_threads=num_threads,
        )

    def _plan(self, epoch: int, step: int) -> tuple[IntArray, Views]:
        seed = self.sampler.seed
        positions = self.sampler.positions(epoch, step)
        views = [self.transforms.draw(seed, epoch, positions, stream) for stream in (_FIRST, _SECOND)]
        return self._indices(self.sampler, epoch, step), Views.concatenate(views)

    def _indices(self, sampler: PairSampler, epoch: int, step: int) -> IntArray:
        return np.concatenate(sampler.batch(epoch, step))

    def _assemble(self, labels: BatchLabels, images: Tensor) -> dict[str, Tensor]:
        images1, images2 = images.chunk(2)
        label, domain, index = labels
        target1, target2 = label.chunk(2)
        domain1, domain2 = domain.chunk(2)
        index1, index2 = index.chunk(2)
        return {
            "images1": images1,
            "images2": images2,
            "target1": target1,
            "target2": target2,
            "domain1": domain1,
            "domain2": domain2,
            "index1": index1,
            "index2": index2,
        }


class ImageLoader(Loader):
    """Yields batches of single images, for evaluation and for training without pairs.

    A batch is a dict of ``images`` ([B, 3, size, size], normalised), ``target`` (class), ``domain`` and
    ``index`` (row of the manifest; all int64 [B]).

    Args:
        manifest: the images; the sampler's indices are its rows.
        sampler: the order of the images; also provides seed, batch size, rank and world size.
        augment: apply the training transforms, as to the first images of pairs; False applies those of evaluation.

    Other args, and errors: as for `PairLoader`.
    """

    _images_per_row = 1
    sampler: ImageSampler | BalancedSampler

    def __init__(
        self,
        manifest: Manifest,
        sampler: ImageSampler | BalancedSampler,
        augment: bool,
        *,
        device: str | torch.device = "cpu",
        cache: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        transforms: Transforms = Transforms(),  # noqa: B008  (frozen)
        dtype: torch.dtype = torch.float32,
        backend: str = "auto",
        mode: str = "fused",
        on_error: str = "replace",
        prefetch: int = 2,
        num_threads: int | None = None,
    ) -> None:
        self._augment = augment
        super().__init__(
            manifest,
            sampler,
            device=device,
            cache=cache,
            cache_dir=cache_dir,
            transforms=transforms,
            dtype=dtype,
            backend=backend,
            mode=mode,
            on_error=on_error,
            prefetch=prefetch,
            num_threads=num_threads,
        )

    def _plan(self, epoch: int, step: int) -> tuple[IntArray, Views]:
        indices = self._indices(self.sampler, epoch, step)
        if not self._augment:
            return indices, self.transforms.evaluation(len(indices))
        positions = self.sampler.positions(epoch, step)
        return indices, self.transforms.draw(self.sampler.seed, epoch, positions, _FIRST)

    def _indices(self, sampler: ImageSampler | BalancedSampler, epoch: int, step: int) -> IntArray:
        return sampler.batch(epoch, step)

    def _assemble(self, labels: BatchLabels, images: Tensor) -> dict[str, Tensor]:
        target, domain, index = labels
        return {"images": images, "target": target, "domain": domain, "index": index}
