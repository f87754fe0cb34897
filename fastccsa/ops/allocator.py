"""Memory for large results on the CPU, which the library can keep for the next ones."""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa.ops import library  # noqa: F401 - loads the ops
from fastccsa.system.errors import InputError

__all__ = ["large_empty", "set_cpu_cache_limit"]


def set_cpu_cache_limit(size: int) -> int:
    """Set how many bytes of large CPU results are kept for the next ones, instead of going back to the system.

    Mapping fresh memory for the gradients of a large batch takes several times as long as computing them. What is
    kept is marked as worthless: where memory runs short, the system takes it back.

    Args:
        size: bytes, a quarter of the machine's memory unless set; 0 keeps nothing, and frees what was kept.

    Returns:
        The limit before.

    Raises:
        InputError: a negative size.
    """
    if size < 0:
        raise InputError(f"size is {size}: give a number of bytes, or 0 to keep nothing")
    before: int = torch.ops.fastccsa.set_cpu_cache_limit.default(size)
    return before


def large_empty(like: Tensor, rows: int, columns: int) -> Tensor:
    """An uninitialised matrix beside ``like``, of its dtype; large ones on the CPU in memory that others gave back."""
    if like.device.type != "cpu":
        return like.new_empty((rows, columns))
    # Sizes go as a tensor's: torch.compile would take integers for constants.
    shape = like.new_empty(()).expand(rows, columns)
    empty: Tensor = torch.ops.fastccsa.large_empty_like.default(shape)
    return empty


@torch.library.register_fake("fastccsa::large_empty_like")
def _large_empty_like_fake(like: Tensor) -> Tensor:
    return like.new_empty(like.shape)
