"""Making the crops of a store, the part of the transforms that is the same in every epoch."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch

from fastccsa.images.backend import Backend, DaliError
from fastccsa.images.readahead import read_ahead
from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.store_index import checksum
from fastccsa.images.transforms import Transforms, Views
from fastccsa.system.machine import usable_cpus

logger = logging.getLogger("fastccsa.images")

# Images in a batch. A GPU decodes several at a time, and a small batch needs as many launches as a large one; the limit
# is the memory of large images.
_BATCH, _GPU_BATCH = 32, 64
_PREFETCH = 2


@dataclass(frozen=True)
class Crop:
    """The crop of one image.

    Attributes:
        path: the image file.
        content: CRC-32 of the bytes that were decoded, so that a later change of the file is detected; None if it
            cannot be read.
        pixels: uint8 [crop, crop, 3]; None if the image is broken.
        broken: why the image is broken; None if it is not.
    """

    path: str
    content: int | None
    pixels: np.ndarray | None
    broken: str | None = None


class CropMaker:
    """Decodes, resizes and centre-crops images in batches.

    Args:
        source: the images; broken ones are recorded there.
        transforms: provides the sizes.
        backend: "dali" or "torchvision".
        num_threads: number of threads; None for one per usable CPU.
        device: where DALI makes the crops; torchvision makes them on the CPU. If DALI cannot use this GPU, a warning
            says so and it makes them on the CPU.

    Raises:
        DaliError: DALI cannot be imported.
    """

    def __init__(
        self,
        source: ImageSource,
        transforms: Transforms,
        backend: str,
        num_threads: int | None,
        device: torch.device,
    ) -> None:
        self._source = source
        self._transforms = transforms
        self._threads = num_threads or usable_cpus()
        self._backend = backend
        if backend == "dali":
            import_module("fastccsa.images.dali")
        on_gpu = backend == "dali" and device.type == "cuda"
        self._device = torch.device("cuda", device.index or 0) if on_gpu else torch.device("cpu")

    def make(self, indices: list[int]) -> Generator[list[Crop], None, None]:
        """Make the crops of some images of the source, in order, some at a time.

        Raises:
            InputError: an image is broken and the source's ``on_error`` is "raise", or no image is valid.
            DaliError: DALI fails on the CPU, on images that are not broken.
        """
        done = 0
        while done < len(indices):
            try:
                with closing(self._run(indices[done:])) as batches:
                    for crops in batches:
                        yield crops
                        done += len(crops)
            except DaliError as error:
                if self._device.type == "cpu":
                    raise
                logger.warning("%s; the crops are made on the CPU", error.problem)
                self._device = torch.device("cpu")

    def _run(self, indices: list[int]) -> Generator[list[Crop], None, None]:
        size = _BATCH if self._device.type == "cpu" else _GPU_BATCH
        backend = self._make_backend(size)
        batches = [indices[start : start + size] for start in range(0, len(indices), size)]
        contents: dict[int, int | None] = {}

        def read(batch: list[int]) -> EncodedBatch:
            encoded = self._source.read(np.array(batch, np.int64), self._full_views(len(batch)))
            for index, shown, image in zip(batch, encoded.indices, encoded.images, strict=True):
                as_read = shown == index and image.is_file
                contents[index] = zlib.crc32(image.data.data) if as_read else _checksum(self._source.paths[index])
            return encoded

        with ThreadPoolExecutor(_PREFETCH + 1, thread_name_prefix="fastccsa-reader") as readers:
            encoded = read_ahead(read, batches, readers, _PREFETCH)
            finished = backend.run(encoded)
            try:
                for batch, (shown, pixels) in zip(batches, finished, strict=True):
                    was_shown = shown.indices == batch
                    yield [
                        self._crop(index, contents.pop(index), pixels[row].numpy() if was_shown[row] else None)
                        for row, index in enumerate(batch)
                    ]
            finally:
                finished.close()
                encoded.close()
                backend.close()

    def _crop(self, index: int, content: int | None, pixels: np.ndarray | None) -> Crop:
        """Describe the crop of an image; ``pixels`` is None if the image was replaced."""
        path = self._source.paths[index]
        return Crop(path, content, pixels, None if pixels is not None else self._source.broken.get(path))

    def _full_views(self, count: int) -> Views:
        """Return the views that show the full centre crop upright."""
        crop = self._transforms.crop
        return Views(
            window=np.tile(np.array([0, 0, crop, crop], np.int64), (count, 1)),
            flips=np.zeros((count, 2), np.bool_),
            turns=np.zeros(count, np.int64),
            cutout=np.zeros((count, 4), np.int64),
        )

    def _make_backend(self, batch_size: int) -> Backend:
        options = {"num_threads": self._threads, "prefetch": _PREFETCH}
        if self._backend == "torchvision":
            from fastccsa.images.torchvision_backend import TorchvisionCrops

            return TorchvisionCrops(self._source, self._transforms, **options)
        from fastccsa.images.dali import DaliCrops  # slow to import

        return DaliCrops(self._source, self._transforms, self._device, batch_size=batch_size, **options)


def _checksum(path: str) -> int | None:
    try:
        return checksum(path)
    except OSError:
        return None  # reading the image will report the error
