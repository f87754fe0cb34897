"""The base class of the samplers, which divides an epoch into steps, and each step among the ranks."""

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


class ShardedSampler(ABC, Generic[Batch]):
    """A sampler whose epoch of ``size`` positions is divided into steps, and each step among the ranks.

    Step ``s`` covers the positions from ``s * world_size * batch_size`` on, ``batch_size`` for each rank. The last step
    covers the remaining positions, divided as evenly as possible: a rank's last batch may be smaller, and it is empty
    if fewer positions remain than there are ranks. ``drop_last`` omits a last step that is not full.

    What is drawn at a position depends only on (seed, epoch, position). So ranks never overlap, together they cover the
    same epoch whatever ``world_size`` is, and any batch can be computed without those before it.

    Args:
        size: number of images n.
        batch_size: positions per rank and step.
        seed: 0 to 2^64 - 1.
        rank: this process's index among ``world_size``.
        world_size: number of processes that share each step.
        drop_last: omit the last step if it is not full.

    Raises:
        InputError: an argument out of range, or no step is left.
    """

    def __init__(self, *, size: int, batch_size: int, seed: int, rank: int, world_size: int, drop_last: bool) -> None:
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
        """Set the epoch that iteration yields.

        Raises:
            InputError: ``epoch`` is not in 0 to 2^32 - 1.
        """
        self.epoch = check_integer("epoch", epoch, 0, MAX_EPOCH)

    def positions(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the positions in the epoch that this rank's batch covers, int64 ``[B]``.

        Random numbers drawn by position (`fastccsa.sampling.uniforms`) do not depend on the number of ranks.

        Raises:
            InputError: ``epoch`` or ``step`` out of range.
        """
        _, begin, end = self._shard(epoch, step)
        return np.arange(begin, end, dtype=np.int64)

    def rows(self, step: int) -> int:
        """Count the positions of a step over all ranks.

        Raises:
            InputError: ``step`` out of range.
        """
        window = self.world_size * self.batch_size
        return min(window, self.size - check_integer("step", step, 0, len(self) - 1) * window)

    @abstractmethod
    def batch(self, epoch: int, step: int) -> Batch:
        """Return the image indices of this rank's batch."""

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches of the epoch given to ``set_epoch``."""
        epoch = self.epoch
        return (self.batch(epoch, step) for step in range(len(self)))

    def _shard(self, epoch: int, step: int) -> tuple[int, int, int]:
        """Return the validated epoch, and this rank's positions ``begin`` to ``end - 1`` of the step."""
        epoch = check_integer("epoch", epoch, 0, MAX_EPOCH)
        ranks = self.world_size
        first = check_integer("step", step, 0, len(self) - 1) * ranks * self.batch_size
        rows = min(ranks * self.batch_size, self.size - first)
        return epoch, first + rows * self.rank // ranks, first + rows * (self.rank + 1) // ranks
