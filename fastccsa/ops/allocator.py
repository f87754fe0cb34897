"""Memory for large results on the CPU, which the library keeps for the next ones if it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fastccsa.ops import library  # noqa: F401 - loads the ops
from fastccsa.system.errors import InputError

__all__ = ["cpu_cache", "large_empty", "set_cpu_cache_limit"]


def set_cpu_cache_limit(size: int) -> int:
    """Set how many bytes of large CPU results this process keeps for the next ones; 0, the default, keeps nothing.

    Without a limit, the memory of a large gradient goes back to the system when the gradient is freed, and the next one
    gets fresh pages, which the system has to map and to zero: several times the work of computing the gradient. Set a
    limit where the loss is called again and again on the CPU with large batches: results of 8 MiB or more, such as the
    gradients of 4096 rows of 512 float32 features. Smaller ones are recycled by the system's allocator anyway, and CUDA
    is not concerned. `fastccsa train` on the CPU sets a limit for the time of the run.

    The cost is memory: up to ``size`` bytes stay with the process between calls. They are marked as worthless
    (``MADV_FREE``), so the system takes them back when memory runs short, without writing them to disk; until then they
    count as used by the process. Torch before 2.11 cannot use memory of another library: with it, nothing is kept.

    Args:
        size: bytes; what exceeds them is freed at once. 0 keeps nothing, and frees what was kept.

    Returns:
        The previous limit.

    Raises:
        InputError: a negative size.

    Example:
        >>> import fastccsa
        >>> previous = fastccsa.set_cpu_cache_limit(4 << 30)  # 4 GiB
        >>> fastccsa.set_cpu_cache_limit(previous)
        4294967296
    """
    if size < 0:
        raise InputError(f"size is {size}: give a number of bytes, or 0 to keep nothing")
    before: int = torch.ops.fastccsa.set_cpu_cache_limit.default(size)
    return before


@contextmanager
def cpu_cache(size: int) -> Iterator[None]:
    """Keep up to ``size`` bytes for the time of the block, unless a limit is set already; see `set_cpu_cache_limit`."""
    previous = set_cpu_cache_limit(size)
    try:
        if previous:
            set_cpu_cache_limit(previous)
        yield
    finally:
        set_cpu_cache_limit(previous)


def large_empty(like: Tensor, rows: int, columns: int) -> Tensor:
    """Make an uninitialised matrix of the dtype and device of ``like``; a large one on the CPU in recycled memory."""
    if like.device.type != "cpu":
        return like.new_empty((rows, columns))
    # The sizes are passed as those of a tensor, because torch.compile would take integers for constants.
    shape = like.new_empty(()).expand(rows, columns)
    empty: Tensor = torch.ops.fastccsa.large_empty_like.default(shape)
    return empty


@torch.library.register_fake("fastccsa::large_empty_like")
def _large_empty_like_fake(like: Tensor) -> Tensor:
    return like.new_empty(like.shape)
