"""The sampler that draws every class and domain equally often."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastccsa.sampling._sampler import uniforms
from fastccsa.sampling.sharding import ShardedSampler
from fastccsa.sampling.validate import check_indices, check_integer

_STREAM = 3  # of the random words of a seed; 0 draws pairs, 1 and 2 augmentation


class BalancedSampler(ShardedSampler[NDArray[np.int64]]):
    """Draws a class, a domain that has it, and an image of both, each with equal probability.

    An epoch has as many draws as there are images; images of rare classes occur several times, and others not at all.

    Args:
        labels: class of each image, integers in ``0..num_classes-1``, ``[n]`` (list, array or tensor).
        domains: domain of each image, integers from 0 on, ``[n]``.
        num_classes: number of classes C.
        batch_size: images per rank and step.
        seed: 0 to 2^64 - 1.
        rank: this process's index among ``world_size``.
        world_size: number of processes that share each step.
        drop_last: omit the last step if it is not full.

    Raises:
        InputError: an argument out of range, no images, or a label outside its range.
    """

    def __init__(
        self,
        labels: Any,
        domains: Any,
        num_classes: int = 7,
        batch_size: int = 32,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.num_classes = check_integer("num_classes", num_classes, 1, 2**31)
        labels = check_indices("labels", labels, self.num_classes)
        domains = check_indices("domains", domains, int(np.max(domains, initial=0)) + 1)
        super().__init__(
            size=len(labels),
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        # Images in the order of class, then domain, and where each such group begins and ends.
        self._order = np.lexsort((domains, labels))
        changes = (np.diff(labels[self._order]) != 0) | (np.diff(domains[self._order]) != 0)
        starts = np.append(0, np.flatnonzero(changes) + 1)
        self._ends = np.append(starts[1:], self.size)
        self._starts = starts
        classes = labels[self._order][starts]
        self._present = np.unique(classes)
        self._first_group = np.searchsorted(classes, self._present)
        self._groups = np.searchsorted(classes, self._present, side="right") - self._first_group

    def batch(self, epoch: int, step: int) -> NDArray[np.int64]:
        """Return the image indices of this rank's batch, int64 ``[B]``: a pure function of its arguments.

        Raises:
            InputError: ``epoch`` or ``step`` out of range.
        """
        draws = uniforms(self.seed, _STREAM, epoch, self.positions(epoch, step), 3)
        kind = (draws[:, 0] * len(self._present)).astype(np.int64)
        group = self._first_group[kind] + (draws[:, 1] * self._groups[kind]).astype(np.int64)
        sizes = self._ends[group] - self._starts[group]
        return self._order[self._starts[group] + (draws[:, 2] * sizes).astype(np.int64)]

    def probabilities(self) -> NDArray[np.float64]:
        """Return P(y), float64 ``[C]``: equal for all classes that have images."""
        found = np.zeros(self.num_classes)
        found[self._present] = 1 / len(self._present)
        return found
