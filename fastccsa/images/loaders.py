"""Loaders: batches of finished images on the training device, for pairs and for single images."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastccsa.images.base_loader import About, Loader
from fastccsa.images.transforms import IntArray, Transforms, Views

if TYPE_CHECKING:
    from fastccsa.collections.manifest import Manifest
    from fastccsa.sampling import ImageSampler, PairSampler

_FIRST, _SECOND = 1, 2  # streams of random numbers: first (or single) images, second images


class PairLoader(Loader):
    """Batches of augmented pairs: what the sampler chose, decoded, transformed and on the device.

    A batch is a dict of ``images1`` and ``images2``, float32 [B, 3, size, size], normalised; ``target1``,
    ``target2`` (class), ``domain1``, ``domain2`` and ``index1``, ``index2`` (row of the manifest), int64 [B].
    The last batch of an epoch may be smaller. Where a broken image was replaced, class, domain and index are
    those of the image shown.

    Args:
        manifest: the images; the sampler's numbers are its rows.
        sampler: which images meet; also gives seed, batch size, rank and world size.
        device: where batches are made: "cpu", or a CUDA device, which then decodes and transforms too.
        cache: None decodes every image every time. Else the part of the transforms that never changes is done
            once and kept in a store (270 kB an image at size 224), and images are made from it with the views
            of ``mode="exact"``: "disk" maps it into memory, "ram" copies it there, "gpu" copies it to the
            device, which then makes the images.
        cache_dir: where stores are kept; None for ``.fastccsa-cache`` beside the manifest, or, where that
            cannot be written, ``$XDG_CACHE_HOME/fastccsa`` (``~/.cache/fastccsa``).
        transforms: the transforms.
        backend: what decodes. "native" is fastccsa's own decoder on the CPU (``mode="fused"``), "dali" NVIDIA
            DALI on CPU or GPU, "torchvision" the slow one that needs neither; "auto" is "native" where it can
            be and else "dali". A store is made by DALI, or by torchvision where that is named.
        mode: "fused" resamples each image once; "exact" twice, as the paper's steps say. Without cache.
        on_error: "replace" a broken image by another and name it in the log and in ``broken``, or "raise".
        prefetch: batches worked on ahead.
        num_threads: CPU threads that decode; None for this process's share of the CPUs, 16 at most, and for
            all of them while a store is made. Images are made from a store with torch's own threads.

    Raises:
        InputError: an argument out of range, sampler and manifest of different sizes, DALI not installed
            (the message says which wheel to take), no image file is there, or the store does not fit the
            disk or the memory.
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
        backend: str = "auto",
        mode: str = "fused",
        on_error: str = "replace",
        prefetch: int = 2,
        num_threads: int | None = None,
    ) -> None:
        super().__init__(
            manifest, sampler, device, cache, cache_dir, transforms, backend, mode, on_error, prefetch, num_threads
        )

    def _plan(self, epoch: int, step: int) -> tuple[IntArray, Views]:
        seed = self.sampler.seed
        positions = self.sampler.positions(epoch, step)
        views = [self.transforms.draw(seed, epoch, positions, stream) for stream in (_FIRST, _SECOND)]
        return np.concatenate(self.sampler.batch(epoch, step)), Views.concatenate(views)

    def _assemble(self, about: About, images: Tensor) -> dict[str, Tensor]:
        images1, images2 = images.chunk(2)
        label, domain, index = about
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
    """Batches of single images, for evaluation and for training without pairs.

    A batch is a dict of ``images``, float32 [B, 3, size, size], normalised, ``target`` (class), ``domain``
    and ``index`` (row of the manifest), int64 [B].

    Args:
        manifest: the images; the sampler's numbers are its rows.
        sampler: the order of the images; also gives seed, batch size, rank and world size.
        augment: training transforms (as a pair's first images), else evaluation's.

    The other arguments and the errors are `PairLoader`'s.
    """

    _images_per_row = 1
    sampler: ImageSampler

    def __init__(
        self,
        manifest: Manifest,
        sampler: ImageSampler,
        augment: bool,
        *,
        device: str | torch.device = "cpu",
        cache: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        transforms: Transforms = Transforms(),  # noqa: B008  (frozen)
        backend: str = "auto",
        mode: str = "fused",
        on_error: str = "replace",
        prefetch: int = 2,
        num_threads: int | None = None,
    ) -> None:
        self._augment = augment
        super().__init__(
            manifest, sampler, device, cache, cache_dir, transforms, backend, mode, on_error, prefetch, num_threads
        )

    def _plan(self, epoch: int, step: int) -> tuple[IntArray, Views]:
        indices = self.sampler.batch(epoch, step)
        if not self._augment:
            return indices, self.transforms.evaluation(len(indices))
        positions = self.sampler.positions(epoch, step)
        return indices, self.transforms.draw(self.sampler.seed, epoch, positions, _FIRST)

    def _assemble(self, about: About, images: Tensor) -> dict[str, Tensor]:
        target, domain, index = about
        return {"images": images, "target": target, "domain": domain, "index": index}
