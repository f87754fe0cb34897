"""The backend that makes batches from a store whose crops are spread over the processes that train together."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fastccsa.images.augment import augment, pack_views
from fastccsa.images.source import ImageSource
from fastccsa.images.store import Store
from fastccsa.images.store_backend import copy_crops
from fastccsa.images.transforms import IntArray, Transforms, Views
from fastccsa.system.errors import InputError


@dataclass(frozen=True)
class ShardedBatch:
    """A batch whose crops have not been exchanged yet.

    Attributes:
        indices: int64 [B], the images shown, after replacements.
        packed: parameters of `augment` for the crops in the order in which they are received, int64 [B, 10].
        outgoing: this process's crops that it sends, in the order of the receivers, int64 [sum(sent)].
        sent, received: number of crops to and from each process.
    """

    indices: IntArray
    packed: Tensor
    outgoing: Tensor
    sent: list[int]
    received: list[int]


class ShardedBackend:
    """Makes batches from crops of which each process keeps its share in the memory of its device.

    Every process knows from the sampler what the others need for a step, so one exchange of crops makes the batches of
    all of them, without a host sync. `run` is collective: all processes must request the same steps in the same order.

    Args:
        source: provides the broken images and their replacements.
        store: the crops of all valid images.
        transforms: the transforms.
        device: where the crops are kept, and the batches made.
        rank, world: this process's number among those of the default group.
        dtype: number type of the images.

    Raises:
        InputError: there is no such group, this share of the crops does not fit in memory, or no image is valid.
    """

    unpacks_on_device = False  # a plan alone does not make a batch

    def __init__(
        self,
        source: ImageSource,
        store: Store,
        transforms: Transforms,
        device: torch.device,
        rank: int,
        world: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not dist.is_initialized() or dist.get_world_size() != world:
            raise InputError(f"cache is 'sharded', but there is no group of {world} processes; start it with torchrun")
        self._transforms, self._device, self._dtype = transforms, device, dtype
        self._rank, self._world = rank, world
        self._shown = source.shown()
        # Crop number n is number n // world of process n % world. Crops are numbered in the order of the manifest, not
        # of the store: processes on several machines may have stores that were filled in different orders.
        used = np.unique(self._shown)
        self._numbers = np.searchsorted(used, np.arange(len(store.rows)))
        self._crops = copy_crops(store, store.rows[used[rank::world]], device)
        store.array.close()

    def read(self, requested: Sequence[IntArray], views: Views) -> ShardedBatch:
        """Prepare a batch, given the images that each process needs for the step. Thread-safe."""
        numbers = [self._numbers[self._shown[indices]] for indices in requested]
        outgoing = [needed[needed % self._world == self._rank] // self._world for needed in numbers]
        owners = numbers[self._rank] % self._world
        # Crops arrive by owner, and from each owner in the order of the batch.
        places = np.empty(len(owners), np.int64)
        places[np.argsort(owners, kind="stable")] = np.arange(len(owners))
        packed, sent = pack_views(places, views), torch.from_numpy(np.concatenate(outgoing))
        on_gpu = self._device.type == "cuda"
        return ShardedBatch(
            self._shown[requested[self._rank]],
            packed.pin_memory() if on_gpu else packed,
            sent.pin_memory() if on_gpu else sent,
            [len(part) for part in outgoing],
            np.bincount(owners, minlength=self._world).tolist(),
        )

    def run(self, batches: Iterator[ShardedBatch]) -> Generator[tuple[ShardedBatch, Tensor], None, None]:
        """Yield each batch in order with its finished images, [B, 3, size, size]. Collective."""
        for batch in batches:
            outgoing = self._crops[batch.outgoing.to(self._device, non_blocking=True)]
            crops = outgoing.new_empty((len(batch.packed), *outgoing.shape[1:]))
            dist.all_to_all_single(crops, outgoing, batch.received, batch.sent)
            packed = batch.packed.to(self._device, non_blocking=True)
            yield batch, augment(crops, packed, self._transforms, self._dtype, channels_last=True)

    def close(self) -> None:
        """Release the crops."""
        self._crops = torch.empty(0)
