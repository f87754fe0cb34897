"""Which positions of an epoch a rank takes at a step: the part both samplers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastccsa.sampling._sampler import MAX_SIZE
from fastccsa.sampling.validate import check_integer
from fastccsa.system.errors import InputError

Batch = TypeVar("Batch")

MAX_SEED = 2**64 - 1
MAX_EPOCH = 2**32 - 1


class EpochSampler(ABC, Generic[Batch]):
    """An epoch of ``size`` positions, cut into steps over all ranks and each step into ranks.

    Step ``s`` covers the positions from ``s * world_size * batch_size`` on, ``batch_size`` for each
    rank. The last step holds what is left, shared as evenly as can be, so a rank's last batch may be
    smaller, and empty where fewer positions are left than ranks; ``drop_last`` leaves that step out.

    What stands at a position depends on (seed, epoch, position) alone. So the ranks never overlap,
    together they cover the same epoch whatever ``world_size`` is, and a batch needs none before it.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int, world_size: int, drop_last: bool) -> None:
        self.size = check_integer("the number of images", size, 1, MAX_SIZE)
        self.batch_size = check_integer("batch_size", batch_size, 1, MAX_SIZE)
        self.seed = check_integer("seed", seed, 0, MAX_SEED)
        self.world_size = check_integer("world_size", world_size, 1, MAX_SIZE)
        self.rank = check_integer("rank", rank, 0, self.world_size - 1)
        self.drop_last = bool(drop_last)
        self.epoch = 0
        if len(self) == 0:
            raise InputError(
                f"drop_last leaves no step: {self.size} images do not fill one step of "
                f"{self.world_size} x {self.batch_size}; use a smaller batch_size or drop_last=False"
            )

    def __len__(self) -> int:
        """Count the steps of an epoch, the same on every rank."""
        window = self.world_size * self.batch_size
        return self.size // window if self.drop_last else -(-self.size // window)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that iteration walks."""
        self.epoch = check_integer("epoch", epoch, 0, MAX_EPOCH)

    def positions(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Global positions in the epoch of the batch's rows, int64 ``[B]``.

        Random numbers drawn by position (``fastccsa.sampling._sampler.uniforms``) are the same whatever the
        number of ranks.

        Raises:
            InputError: ``epoch`` or ``step`` out of range.
        """
        _, begin, end = self._span(epoch, step)
        return np.arange(begin, end, dtype=np.int64)

    def rows(self, step: int) -> int:
        """Number of rows of a step, all ranks together."""
        window = self.world_size * self.batch_size
        return min(window, self.size - check_integer("step", step, 0, len(self) - 1) * window)

    @abstractmethod
    def batch(self, epoch: int, step: int) -> Batch:
        """Image indices of this rank's batch."""

    def __iter__(self) -> Iterator[Batch]:
        """Walk the current epoch, the one given to ``set_epoch``."""
        epoch = self.epoch
        return (self.batch(epoch, step) for step in range(len(self)))

    def _span(self, epoch: int, step: int) -> tuple[int, int, int]:
        """Return the epoch, checked, and this rank's positions ``begin..end-1`` at a step of it."""
        epoch = check_integer("epoch", epoch, 0, MAX_EPOCH)
        step = check_integer("step", step, 0, len(self) - 1)
        window = self.world_size * self.batch_size
        low = step * window
        held = min(window, self.size - low)
        begin = low + held * self.rank // self.world_size
        end = low + held * (self.rank + 1) // self.world_size
        return epoch, begin, end
