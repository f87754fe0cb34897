"""Batches from a store of crops: on the disk, in memory, or on the GPU. Nothing is decoded."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fastccsa._build_info import CUDA_VERSION
from fastccsa.images.augment import augment, pack_views
from fastccsa.images.source import ImageSource
from fastccsa.images.store import Store
from fastccsa.images.transforms import IntArray, Transforms, Views
from fastccsa.system import machine
from fastccsa.system.errors import InputError

CACHES = ("disk", "ram", "gpu")

_CHUNK = 256  # crops copied at a time


@dataclass(frozen=True)
class StoredBatch:
    """A batch that was asked for.

    Attributes:
        indices: int64 [B], the images really shown.
        ready: with cache "gpu" what `augment` needs to know, int64 [B, 10], else the finished images.
    """

    indices: IntArray
    ready: Tensor


class StoredBackend:
    """Makes batches from a store.

    Making one falls into two: `pack`, what is to be seen of which crop, on the host; and `unpack`, the images.

    With ``cache="gpu"`` the GPU makes them from its own memory, when they are asked for, on the current
    stream. Else the CPU makes them ahead, with torch's threads.

    Args:
        source: knows the broken images, and what is shown in their place.
        store: the crops of the whole ones.
        transforms: the transforms.
        device: where the finished batches go.
        cache: "disk", "ram" or "gpu".

    Raises:
        InputError: the crops do not fit the memory, or no image is whole.
    """

    def __init__(
        self, source: ImageSource, store: Store, transforms: Transforms, device: torch.device, cache: str
    ) -> None:
        self._transforms = transforms
        self._device = device
        self._on_gpu = cache == "gpu"
        self._shown = source.shown()
        if cache == "disk":
            self._crops, self._rows = torch.from_numpy(store.array), store.rows
        else:
            whole = np.unique(store.rows[self._shown])
            self._crops = _copy(store, whole, device if self._on_gpu else torch.device("cpu"))
            self._rows = np.searchsorted(whole, store.rows)

    def read(self, indices: IntArray, views: Views) -> StoredBatch:
        """Prepare a batch; safe to call from several threads."""
        shown, packed = self.pack(indices, views)
        if self._on_gpu:
            return StoredBatch(shown, packed.pin_memory())
        size, pinned = self._transforms.size, self._device.type == "cuda"
        images = torch.empty(len(shown), 3, size, size, pin_memory=pinned)
        return StoredBatch(shown, augment(self._crops, packed, self._transforms, out=images))

    def run(self, batches: Iterator[StoredBatch]) -> Generator[tuple[StoredBatch, Tensor], None, None]:
        """Finish batches in their order: each with its images, float32 [B, 3, size, size]."""
        for batch in batches:
            ready = batch.ready.to(self._device, non_blocking=True)
            yield batch, self.unpack(ready) if self._on_gpu else ready

    @property
    def unpacks_on_device(self) -> bool:
        """Whether crops lie where batches go, so that `unpack` takes what is packed there."""
        return self._crops.device == self._device

    def pack(self, indices: IntArray, views: Views) -> tuple[IntArray, Tensor]:
        """Find the images really shown, int64 [B], and what `unpack` needs to know, int64 [B, 10] on the CPU."""
        shown = self._shown[indices]
        return shown, pack_views(self._rows[shown], views)

    def unpack(self, packed: Tensor) -> Tensor:
        """Make the images, float32 [B, 3, size, size], where the crops are; on a GPU launches kernels alone."""
        return augment(self._crops, packed, self._transforms)

    def close(self) -> None:
        """Let go of the crops."""
        self._crops = torch.empty(0)


def check_cache(cache: str, device: torch.device) -> None:
    """Check a loader's ``cache`` before any work is done.

    Raises:
        InputError: no such cache, or one that this device or build does not have.
    """
    if cache not in CACHES:
        raise InputError(f"cache is {cache!r}; give None or one of {', '.join(CACHES)}")
    if cache == "gpu" and device.type != "cuda":
        raise InputError(f"cache is 'gpu' and device is {device}; give device='cuda', or cache='ram'")
    if cache == "gpu" and not CUDA_VERSION:
        raise InputError("cache is 'gpu', and fastccsa was built without CUDA code; see `fastccsa check`")


def _copy(store: Store, rows: IntArray, device: torch.device) -> Tensor:
    """Copy crops into memory, in the order of ``rows``."""
    shape = (len(rows), *store.array.shape[1:])
    needed, free = int(np.prod(shape)), machine.available_bytes(device)
    if needed > free:
        where = "GPU memory" if device.type == "cuda" else "memory"
        raise InputError(
            f"the crops of {len(rows)} images need {needed / 1e9:.1f} GB of {where}, and {free / 1e9:.1f} GB are "
            "free; give cache='disk', or None"
        )
    crops = torch.empty(shape, dtype=torch.uint8, device=device)
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        crops[start : start + len(chunk)] = torch.from_numpy(store.array[chunk])
    return crops
