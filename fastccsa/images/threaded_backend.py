"""The base class of backends that make batches in worker threads, one image at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from fastccsa.images.decode import BrokenImageError, EncodedImage, decode
from fastccsa.images.layout import new_images
from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.transforms import Transforms


class ThreadedBackend(ABC):
    """Makes batches on the CPU. Subclasses implement `_make` for one image; it should release the GIL.

    Args:
        source: provides the replacements of broken images.
        transforms: the transforms.
        device: where the finished batches go.
        num_threads: number of worker threads.
        prefetch: number of batches prepared ahead.
    """

    def __init__(
        self, source: ImageSource, transforms: Transforms, device: torch.device, *, num_threads: int, prefetch: int
    ) -> None:
        self._source = source
        self._transforms = transforms
        self._device = device
        self._prefetch = prefetch
        self._workers = ThreadPoolExecutor(num_threads, thread_name_prefix="fastccsa-images")

    def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, Tensor], None, None]:
        """Yield each batch in order with its finished images, float32 [B, 3, size, size]."""
        pending: deque[tuple[EncodedBatch, Tensor, list[Future[None]]]] = deque()
        try:
            for batch in batches:
                pending.append(self._submit(batch))
                if len(pending) > self._prefetch:
                    yield self._collect(*pending.popleft())
            while pending:
                yield self._collect(*pending.popleft())
        finally:
            for _, _, work in pending:
                for future in work:
                    future.cancel()

    def close(self) -> None:
        """Stop the worker threads."""
        self._workers.shutdown(cancel_futures=True)

    def _plan(self, batch: EncodedBatch) -> Any:
        """Compute the values that `_make` needs for all images of a batch; None unless overridden."""
        return None

    @abstractmethod
    def _make(self, batch: EncodedBatch, row: int, plan: Any, out: Tensor) -> None:
        """Write the finished image in ``row`` of the batch to ``out``; called in the worker threads."""

    def _allocate(self, count: int) -> Tensor:
        return new_images(count, self._transforms, self._device)

    def _submit(self, batch: EncodedBatch) -> tuple[EncodedBatch, Tensor, list[Future[None]]]:
        plan = self._plan(batch)
        with torch.inference_mode(False):  # the workers, which are not in inference mode, write to this tensor
            images = self._allocate(len(batch))
            work = [self._workers.submit(self._make, batch, row, plan, images[row]) for row in range(len(batch))]
        return batch, images, work

    def _collect(self, batch: EncodedBatch, images: Tensor, work: list[Future[None]]) -> tuple[EncodedBatch, Tensor]:
        for future in work:
            future.result()
        return batch, images.to(self._device, non_blocking=True)

    def _decode(self, batch: EncodedBatch, row: int) -> Image.Image:
        """Decode an image with Pillow; if it is broken, replace it in the batch until one can be decoded."""
        while True:
            image: EncodedImage = batch.images[row]
            try:
                return decode(image.data)
            except BrokenImageError as error:
                self._source.replace(batch, row, str(error))
