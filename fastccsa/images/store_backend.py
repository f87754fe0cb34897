"""The backend that makes batches from a store of crops on the disk, in memory or on the GPU, without decoding."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastccsa._build_info import CUDA_VERSION
from fastccsa.images.augment import augment, augment_file, pack_views
from fastccsa.images.choices import CropCache
from fastccsa.images.crop_file import CacheError, CropFile, DamagedCropsError
from fastccsa.images.layout import new_images
from fastccsa.images.source import ImageSource
from fastccsa.images.store import Store
from fastccsa.images.transforms import IntArray, Transforms, Views
from fastccsa.system import machine
from fastccsa.system.errors import InputError

CACHES = get_args(CropCache)

_CHUNK, _COPIERS = 16, 8  # crops that a thread copies at a time, and threads; pinned memory of as many crops is kept


@dataclass(frozen=True)
class StoreBatch:
    """A batch on its way through the backend.

    Attributes:
        indices: int64 [B], the images shown, after replacements.
        ready: the packed parameters of `augment`, int64 [B, 10], with cache "gpu"; otherwise the finished images.
    """

    indices: IntArray
    ready: Tensor


class StoreBackend:
    """Makes batches from a store, in two steps: `pack` collects rows and views on the host, `unpack` makes the images.

    With ``cache="gpu"`` the GPU makes the images from its own memory when they are requested, on the current stream.
    Otherwise the CPU makes them ahead of time, with torch's threads.

    Args:
        source: provides the broken images and their replacements.
        store: the crops of all valid images.
        transforms: the transforms.
        device: where the finished batches go.
        cache: "disk", "ram" or "gpu".
        dtype: number type of the images.

    Raises:
        InputError: the crops do not fit in memory, are damaged, or no image is valid.
    """

    def __init__(
        self,
        source: ImageSource,
        store: Store,
        transforms: Transforms,
        device: torch.device,
        cache: str,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._transforms = transforms
        self._dtype = dtype
        self._device = device
        self._on_gpu = cache == "gpu"
        self._shown = source.shown()
        self._crops: Tensor | CropFile
        if cache == "disk":
            self._crops, self._rows = store.array, store.rows
        else:
            used = np.unique(store.rows[self._shown])
            self._crops = copy_crops(store, used, device if self._on_gpu else torch.device("cpu"))
            self._rows = np.searchsorted(used, store.rows)
            store.array.close()

    def read(self, indices: IntArray, views: Views) -> StoreBatch:
        """Prepare a batch. Thread-safe."""
        shown, packed = self.pack(indices, views)
        if self._on_gpu:
            return StoreBatch(shown, packed.pin_memory())
        images = new_images(len(shown), self._transforms, self._device, self._dtype)
        return StoreBatch(shown, self._make(packed, images))

    def run(self, batches: Iterator[StoreBatch]) -> Generator[tuple[StoreBatch, Tensor], None, None]:
        """Yield each batch in order with its finished images, [B, 3, size, size]."""
        for batch in batches:
            ready = batch.ready.to(self._device, non_blocking=True)
            yield batch, self.unpack(ready) if self._on_gpu else ready

    @property
    def unpacks_on_device(self) -> bool:
        """Whether the crops are on the device that the batches go to, so that `unpack` runs there."""
        return self._device.type == "cpu" or self._on_gpu

    def pack(self, indices: IntArray, views: Views) -> tuple[IntArray, Tensor]:
        """Return the images shown, int64 [B], and the packed parameters for `unpack`, int64 [B, 10] on the CPU."""
        shown = self._shown[indices]
        return shown, pack_views(self._rows[shown], views)

    def unpack(self, packed: Tensor) -> Tensor:
        """Make the images, [B, 3, size, size], where the crops are. On a GPU this only launches kernels."""
        return self._make(packed)

    def _make(self, packed: Tensor, out: Tensor | None = None) -> Tensor:
        if isinstance(self._crops, CropFile):
            out = new_images(len(packed), self._transforms, dtype=self._dtype) if out is None else out
            return augment_file(self._crops, packed, self._transforms, out)
        return augment(self._crops, packed, self._transforms, self._dtype, channels_last=True, out=out)

    def close(self) -> None:
        """Release the crops."""
        if isinstance(self._crops, CropFile):
            self._crops.close()
        self._crops = torch.empty(0)


def check_cache(cache: str, device: torch.device) -> None:
    """Validate the ``cache`` argument of a loader.

    Raises:
        InputError: the cache is unknown, or this device or build does not support it.
    """
    if cache not in CACHES:
        raise InputError(f"cache is {cache!r}; give None or one of {', '.join(CACHES)}")
    if cache == "gpu" and device.type != "cuda":
        raise InputError(
            f"cache is 'gpu' and device is {device}; use --cache ram or a GPU (in Python: cache='ram' or device='cuda')"
        )
    if cache == "gpu" and not CUDA_VERSION:
        raise InputError("cache is 'gpu', but fastccsa was built without CUDA code; see `fastccsa check`")


def copy_crops(store: Store, rows: IntArray, device: torch.device) -> Tensor:
    """Copy crops into the memory of a device, in the order of ``rows``, and verify them.

    Raises:
        CacheError: they do not fit.
        DamagedCropsError: some do not have their checksums.
    """
    shape = (len(rows), *store.array.shape[1:])
    needed, free = int(np.prod(shape)), machine.available_bytes(device)
    if needed > free:
        where = "GPU memory" if device.type == "cuda" else "memory"
        raise CacheError(
            f"the crops of {len(rows)} images need {needed / 1e9:.1f} GB of {where}, and {free / 1e9:.1f} GB are "
            "free; use --cache disk or --cache none (in Python: cache='disk' or cache=None)"
        )
    try:
        with torch.inference_mode(False):  # the threads, which are not in inference mode, write to it
            crops = torch.empty(shape, dtype=torch.uint8, device=device)
    except RuntimeError as error:  # of memory in pieces, or taken since
        reason = str(error).split("\n")[0]
        raise CacheError(
            f"the crops of {len(rows)} images do not fit into memory ({reason}); use --cache disk or --cache none "
            "(in Python: cache='disk' or cache=None)"
        ) from error
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # earlier work on this memory; the threads use another stream
    damaged = 0
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(rows), _CHUNK)]
    workers = min(_COPIERS, machine.usable_cpus())
    progress = tqdm(total=len(rows), desc="loading crops", unit="image", disable=None)
    with progress, ThreadPoolExecutor(workers, thread_name_prefix="fastccsa-copier") as threads:
        for found in threads.map(lambda chunk: _copy(store, rows[chunk], crops[chunk]), chunks):
            damaged += found
            progress.update(min(_CHUNK, len(rows) - progress.n))
    if damaged:
        raise DamagedCropsError(
            f"{store.array.path}: {damaged} of {len(rows)} crops are damaged; delete this folder, and check the disk"
        )
    return crops


def _copy(store: Store, rows: IntArray, crops: Tensor) -> int:
    """Copy crops to their place in memory, and return how many are not those that were written."""
    # A GPU copies from pinned memory at the full speed of the bus.
    on_host = crops if crops.device.type == "cpu" else torch.empty(crops.shape, dtype=torch.uint8, pin_memory=True)
    store.array.read(rows, on_host.numpy())
    if on_host is not crops:
        crops.copy_(on_host)
    pairs = zip(on_host.numpy(), rows.tolist(), strict=True)
    return sum(zlib.crc32(crop) != store.checksums[row] for crop, row in pairs)
