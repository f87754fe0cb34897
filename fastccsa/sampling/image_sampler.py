"""The sampler of single images, for training baselines and for evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastccsa.sampling._sampler import permute
from fastccsa.sampling.sharding import ShardedSampler
from fastccsa.sampling.validate import check_indices, check_integer


class ImageSampler(ShardedSampler[NDArray[np.int64]]):
    """Samples every image exactly once per epoch, in a seeded permutation or in order.

    The permutation is computed, not stored: nothing is kept per image. Iteration yields the batches of the epoch given
    to :meth:`set_epoch`.

    Args:
        labels: class of each image, integers in ``0..num_classes-1``, ``[n]`` (list, array or tensor).
        num_classes: number of classes C.
        batch_size: images per rank and step.
        seed: 0 to 2^64 - 1.
        rank: this process's index among ``world_size``.
        world_size: number of processes that share each step.
        drop_last: omit the last step if it is not full.
        shuffle: permute the images; False yields them in order, 0 to n-1, for evaluation.

    Raises:
        InputError: an argument out of range, no images, or a label outside its range.
    """

    def __init__(
        self,
        labels: Any,
        num_classes: int = 7,
        batch_size: int = 32,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        shuffle: bool = True,
    ) -> None:
        self.num_classes = check_integer("num_classes", num_classes, 1, 2**31)
        labels = check_indices("labels", labels, self.num_classes)
        super().__init__(
            size=len(labels),
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        self.shuffle = bool(shuffle)
        self._counts = np.bincount(labels, minlength=self.num_classes)

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the image indices of this rank's batch, int64 ``[B]``: a pure function of its arguments.

        Raises:
            InputError: ``epoch`` or ``step`` out of range.
        """
        epoch, begin, end = self._shard(epoch, step)
        if not self.shuffle:
            return np.arange(begin, end, dtype=np.int64)
        return permute(self.size, self.seed, epoch, begin, end)

    def probabilities(self) -> NDArray[np.float64]:
        """Return P(y), float64 ``[C]``: the share of the images in each class."""
        return self._counts / self.size
