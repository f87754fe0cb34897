"""The interface between the loaders and the backends that make their images."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Protocol

from torch import Tensor

from fastccsa.images.source import EncodedBatch


class Backend(Protocol):
    """Turns encoded images into finished batches."""

    def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, Tensor], None, None]:
        """Yield each batch in order with its finished images, float32 [B, 3, size, size]."""

    def close(self) -> None:
        """Release threads and memory."""
