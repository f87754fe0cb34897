"""What the loaders ask of whatever makes their images."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Protocol

from torch import Tensor

from fastccsa.images.source import EncodedBatch


class Backend(Protocol):
    """What turns encoded images into finished batches."""

    def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, Tensor], None, None]:
        """Finish batches in their order: each with its images, float32 [B, 3, size, size]."""

    def close(self) -> None:
        """Free threads and memory."""
