"""A backend that goes on without DALI if DALI fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import chain

from torch import Tensor

from fastccsa.images.backend import NAMES, Backend, DaliError, say_once
from fastccsa.images.source import EncodedBatch


class FallbackBackend:
    """Makes batches with DALI and, once DALI fails on images that are not broken, with another backend.

    No batch is lost or made twice. A warning gives the reason.

    Args:
        make_dali: makes DALI's backend.
        other: name of the other backend, native or torchvision.
        make_other: makes the other backend.

    Attributes:
        decoder: name of the backend that is used now.
    """

    def __init__(self, make_dali: Callable[[], Backend], other: str, make_other: Callable[[], Backend]) -> None:
        self.decoder = "dali"
        self._other, self._make_other = other, make_other
        self._backend: Backend
        try:
            self._backend = make_dali()
        except DaliError as error:
            self._go_on_without_dali(error)

    def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, Tensor], None, None]:
        """Yield each batch in order with its finished images, float32 [B, 3, size, size]."""
        pending: deque[EncodedBatch] = deque()  # what DALI has taken and not finished

        def taken() -> Iterator[EncodedBatch]:
            for batch in batches:
                pending.append(batch)
                yield batch

        if self.decoder == "dali":
            try:
                with closing(self._backend.run(taken())) as finished:
                    for made in finished:
                        pending.popleft()
                        yield made
            except DaliError as error:
                self._backend.close()
                self._go_on_without_dali(error)
            else:
                return
        yield from self._backend.run(chain(pending, batches))

    def close(self) -> None:
        """Release threads and memory."""
        self._backend.close()

    def _go_on_without_dali(self, error: DaliError) -> None:
        say_once(f"{error.problem}: images are decoded on the CPU by {NAMES[self._other]}")
        self._backend, self.decoder = self._make_other(), self._other
