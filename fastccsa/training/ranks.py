"""The processes that train one model together: torch.distributed's, as torchrun starts them, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore
from torch.distributed.rendezvous import rendezvous

from fastccsa.system.errors import InputError, Interrupted

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """The place of a process among those that train together.

    All methods but the properties are collective: every rank calls them, in the same order.

    Attributes:
        rank: 0 to ``world - 1``.
        world: number of processes.
        local_rank: place among those of this machine, which is also the number of its GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints for all."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is one process only."""
        return self.world == 1

    def share(self, batch_size: int) -> int:
        """Rows of a batch for each rank.

        Raises:
            InputError: they cannot be dealt out evenly.
        """
        if batch_size % self.world:
            raise InputError(
                f"batch_size {batch_size} is that of a step over all processes, and {self.world} cannot share it "
                f"evenly: use a multiple of {self.world}"
            )
        return batch_size // self.world

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum up ``tensor`` over the ranks, in place."""
        if not self.is_alone:
            dist.all_reduce(tensor)
        return tensor

    def maximum(self, tensor: Tensor) -> Tensor:
        """Take the highest of the ranks' values, element by element, in place."""
        if not self.is_alone:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def highest(self, number: int) -> int:
        """Find the highest of the ranks' numbers, without waiting for a GPU."""
        return int(self.maximum(torch.tensor(number)))

    def take_firsts(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite ``tensors`` by those of the first rank."""
        if not self.is_alone:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather(self, value: Value) -> list[Value]:
        """Collect every rank's ``value`` (anything picklable), in the order of the ranks."""
        if self.is_alone:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let the first rank of each machine through the block before the others, which find its work done."""
        if self.local_rank > 0:
            self.highest(0)  # a barrier
        yield
        if self.local_rank == 0:
            self.highest(0)


ALONE = Ranks()


@contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, or whose group the caller made; else be alone.

    NCCL connects GPUs and gloo CPUs, and what the hosts have to tell each other.

    Args:
        device: the one asked for, as `pick_device` takes it.

    Raises:
        InputError: one device was named for several processes; within the block, another process is gone.
    """
    ours = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not ours and not dist.is_initialized():
        yield ALONE
        return
    if device.startswith("cuda:"):
        raise InputError(f"device {device} is one GPU for all processes: use cuda, and each takes its own")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if ours:
        _join("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        local_rank = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
        if on_gpu:
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), local_rank)
        with _losing_contact_is_told(ranks), _leaving_together(ranks):
            yield ranks
    finally:
        if ours:
            dist.destroy_process_group()


def _join(backend: str) -> None:
    """Join the process group that torchrun describes in the environment."""
    on_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    if not on_one_machine or "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        dist.init_process_group(backend)
        return
    # Since torch 2.4 torchrun keeps one store through all restarts, where addresses of the dead would be found. Its
    # count of restarts keeps them apart, but differs from machine to machine; for several, see docs/training.md.
    store, rank, world = next(iter(rendezvous("env://")))
    lives = PrefixStore(f"fastccsa/{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=lives, rank=rank, world_size=world)


@contextmanager
def _leaving_together(ranks: Ranks) -> Iterator[None]:
    """End the block when all ranks are at its end: the threads of one that still listens may abort it otherwise.

    A stop that was asked for ends all of them at the same step; an error may be that of one rank alone.
    """
    try:
        yield
    except Interrupted:
        ranks.highest(0)  # a barrier
        raise
    ranks.highest(0)


@contextmanager
def _losing_contact_is_told(ranks: Ranks) -> Iterator[None]:
    """Turn the error of a rank whose partner is gone into one line.

    Raises:
        InputError: another rank is gone.
    """
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        if ranks.is_alone or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise InputError(
            f"process {ranks.rank} of {ranks.world} lost contact with another one, which says itself why it ended: "
            f"the same command goes on from the last checkpoint ({reason})"
        ) from error


class _SumOverRanks(torch.autograd.Function):
    """Sum over the ranks; each rank's gradient is the sum of all ranks' gradients of the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def sum_over_ranks(x: Tensor) -> Tensor:
    """Sum up ``x`` over the ranks of the default group; can be differentiated."""
    result: Tensor = _SumOverRanks.apply(x)
    return result


def rows_of_all_ranks(x: Tensor, before: int, after: int) -> Tensor:
    """Join the rows of all ranks in their order; can be differentiated.

    Args:
        x: this rank's rows.
        before, after: number of rows on the ranks before and after it.
    """
    # A sum of rows that are zero elsewhere: it takes ranks with fewer rows than others, as an all-gather would not.
    padding = [0, 0] * (x.dim() - 1) + [before, after]
    return sum_over_ranks(torch.nn.functional.pad(x, padding))
