"""Making the crops of a store, the part of the transforms that is the same in every epoch."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fastccsa.images.backend import Backend
from fastccsa.images.readahead import read_ahead
from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.store_index import checksum
from fastccsa.images.transforms import Transforms, Views
from fastccsa.system.machine import usable_cpus

_BATCH = 32
_PREFETCH = 2


@dataclass(frozen=True)
class Crop:
    """The crop of one image.

    Attributes:
        path: the image file.
        content: CRC-32 of the file, computed before decoding, so that a change in between is detected; None if the
            file cannot be read.
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
    """

    def __init__(self, source: ImageSource, transforms: Transforms, backend: str, num_threads: int | None) -> None:
        self._source = source
        self._transforms = transforms
        self._threads = num_threads or usable_cpus()
        self._backend = backend

    def make(self, indices: list[int]) -> Generator[Crop, None, None]:
        """Make the crops of some images of the source, in order.

        Raises:
            InputError: an image is broken and the source's ``on_error`` is "raise", or no image is valid.
        """
        batches = [indices[start : start + _BATCH] for start in range(0, len(indices), _BATCH)]
        contents: dict[int, int | None] = {}

        def read(batch: list[int]) -> EncodedBatch:
            for index in batch:
                contents[index] = _checksum(self._source.paths[index])
            return self._source.read(np.array(batch, np.int64), self._full_views(len(batch)))

        backend = self._make_backend()
        with ThreadPoolExecutor(_PREFETCH + 1, thread_name_prefix="fastccsa-reader") as readers:
            encoded = read_ahead(read, batches, readers, _PREFETCH)
            finished = backend.run(encoded)
            try:
                for batch, (shown, pixels) in zip(batches, finished, strict=True):
                    for row, index in enumerate(batch):
                        path, content = self._source.paths[index], contents.pop(index)
                        if shown.indices[row] == index:
                            yield Crop(path, content, pixels[row].numpy())
                        else:  # the image was replaced
                            yield Crop(path, content, None, self._source.broken.get(path))
            finally:
                finished.close()
                encoded.close()
                backend.close()

    def _full_views(self, count: int) -> Views:
        """Return the views that show the full centre crop upright."""
        crop = self._transforms.crop
        return Views(
            window=np.tile(np.array([0, 0, crop, crop], np.int64), (count, 1)),
            flips=np.zeros((count, 2), np.bool_),
            turns=np.zeros(count, np.int64),
            cutout=np.zeros((count, 4), np.int64),
        )

    def _make_backend(self) -> Backend:
        if self._backend == "torchvision":
            from fastccsa.images.torchvision_backend import TorchvisionCrops

            return TorchvisionCrops(self._source, self._transforms, num_threads=self._threads, prefetch=_PREFETCH)
        from fastccsa.images.dali import DaliCrops  # slow to import

        return DaliCrops(
            self._source, self._transforms, batch_size=_BATCH, num_threads=self._threads, prefetch=_PREFETCH
        )


def _checksum(path: str) -> int | None:
    try:
        return checksum(path)
    except OSError:
        return None  # reading the image will report the error
