"""The processes that train one model together: those that torchrun started, or only this one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

# DistributedDataParallel imports this module, whose default arguments are the group of that moment. Imported after
# the group is made, it would keep the group alive, and gloo's threads can abort a process that exits while they run.
import torch.distributed.nn
from torch import Tensor
from torch.distributed import PrefixStore
from torch.distributed.rendezvous import rendezvous

from fastccsa.system.errors import InputError, Interrupted

Value = TypeVar("Value")
# For how long ranks wait for one that makes what all of them need, such as the crops of a large collection. Torch's
# default is half an hour. A rank that ends is noticed at once.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Ranks:
    """The position of a process among those that train together.

    All methods except `share` and the properties are collective: every rank must call them, in the same order.

    Attributes:
        rank: 0 to ``world - 1``.
        world: number of processes.
        local_rank: number among the processes of this machine, which also selects the GPU.
        patient: a group of all ranks whose operations may take `PATIENCE`; None is the default group.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    patient: Any = field(default=None, compare=False, repr=False)

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    @property
    def is_alone(self) -> bool:
        """Whether there is only one process."""
        return self.world == 1

    def share(self, batch_size: int) -> int:
        """Return the number of rows of a batch that each rank takes.

        Raises:
            InputError: ``batch_size`` is not a multiple of the number of processes.
        """
        if batch_size % self.world:
            raise InputError(
                f"batch_size {batch_size} is that of a step over all processes, and {self.world} cannot share it "
                f"evenly: use a multiple of {self.world}"
            )
        return batch_size // self.world

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over the ranks, in place."""
        if not self.is_alone:
            dist.all_reduce(tensor)
        return tensor

    def maximum(self, tensor: Tensor) -> Tensor:
        """Take the maximum over the ranks, element by element, in place."""
        if not self.is_alone:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def highest(self, number: int) -> int:
        """Return the maximum of the ranks' numbers, without syncing with a GPU."""
        return number if self.is_alone else int(self.maximum(torch.tensor(number)))

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite ``tensors`` with those of the first rank."""
        if not self.is_alone:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def gather(self, value: Value) -> list[Value]:
        """Collect the ``value`` of every rank (anything picklable), in the order of the ranks."""
        if self.is_alone:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    @contextmanager
    def first_before_others(self) -> Iterator[None]:
        """Let the first rank of each machine run the block before the others, which find its work done."""
        if self.local_rank > 0:
            self._wait()
        yield
        if self.local_rank == 0:
            self._wait()

    def _wait(self) -> None:
        """Wait for all ranks, however long they take."""
        if not self.is_alone:
            dist.all_reduce(torch.zeros(1), group=self.patient)


ALONE = Ranks()


@contextmanager
def open_ranks(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, or the process group that the caller made; otherwise train alone.

    NCCL carries tensors on GPUs; gloo carries tensors on CPUs, and Python objects.

    Args:
        device: the configured device, as for `pick_device`.

    Raises:
        InputError: several processes were given the same GPU; or, within the block, another process has ended.
    """
    ours = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if not ours and not dist.is_initialized():
        yield ALONE
        return
    if device.startswith("cuda:"):
        raise InputError(f"device {device} is one GPU for all processes: use cuda, and each takes its own")
    on_gpu = device != "cpu" and torch.cuda.is_available()
    patient = None
    if ours:
        _join("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    try:
        local_rank = int(os.environ.get("LOCAL_RANK", dist.get_rank()))
        if on_gpu:
            torch.cuda.set_device(local_rank % torch.cuda.device_count())
        patient = dist.new_group(timeout=PATIENCE, backend="gloo")
        ranks = Ranks(dist.get_rank(), dist.get_world_size(), local_rank, patient)
        with _report_lost_contact(ranks), _leave_together(ranks):
            yield ranks
    finally:
        if ours:
            dist.destroy_process_group()  # and all other groups
        elif patient is not None:
            dist.destroy_process_group(patient)


def _join(backend: str) -> None:
    """Join the process group that torchrun describes in the environment."""
    on_one_machine = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
    if not on_one_machine or "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        dist.init_process_group(backend)
        return
    # Since torch 2.4 torchrun keeps one store through all restarts, with the addresses of processes that have ended.
    # The restart count separates them, but differs from machine to machine; for several machines see docs/training.md.
    store, rank, world = next(iter(rendezvous("env://")))
    restart = PrefixStore(f"fastccsa/{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=restart, rank=rank, world_size=world)


@contextmanager
def _leave_together(ranks: Ranks) -> Iterator[None]:
    """Wait at the end of the block for all ranks; otherwise threads of a rank that is still communicating may abort.

    A requested stop ends all ranks at the same step, so they wait for each other; an error may occur on one rank only.
    """
    try:
        yield
    except Interrupted:
        ranks.highest(0)  # a barrier
        raise
    ranks.highest(0)


@contextmanager
def _report_lost_contact(ranks: Ranks) -> Iterator[None]:
    """Turn the error of a rank that lost contact with another one into one line.

    Raises:
        InputError: another rank has ended, or keeps this one waiting for too long.
    """
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).splitlines() or [""])[0]
        if ranks.is_alone or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        if "Timed out" in reason:
            raise InputError(
                f"process {ranks.rank} of {ranks.world} waited for another one until the timeout of the process group: "
                f"it hangs or is very slow; the same command resumes from the last checkpoint ({reason})"
            ) from error
        raise InputError(
            f"process {ranks.rank} of {ranks.world} lost contact with another one, which has said why it ended: "
            f"the same command resumes from the last checkpoint ({reason})"
        ) from error


class _SumOverRanks(torch.autograd.Function):
    """Sum over the ranks; the gradient on each rank is the sum of the gradients that all ranks have for the sum."""

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
    """Sum ``x`` over the ranks of the default group; differentiable."""
    result: Tensor = _SumOverRanks.apply(x)
    return result


def rows_of_all_ranks(x: Tensor, before: int, after: int) -> Tensor:
    """Concatenate the rows of all ranks in order; differentiable.

    Args:
        x: this rank's rows.
        before, after: number of rows on the ranks before and after it.
    """
    # A sum of zero-padded rows, because an all-gather needs the same number of rows on every rank.
    padding = [0, 0] * (x.dim() - 1) + [before, after]
    return sum_over_ranks(torch.nn.functional.pad(x, padding))
