"""What every benchmark says of a contestant: how its function is made, and what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["CannotExpress", "LossFunction", "Rival"]


class CannotExpress(Exception):
    """A rival cannot compute this loss here; the message says why."""


@dataclass(frozen=True)
class LossFunction:
    """What is called, and what the reader must know about it.

    Attributes:
        call: the loss function.
        note: how it was made.
        keeps_memory: it allocates once and for all, so that a call's memory says nothing.
    """

    call: Callable[..., Tensor]
    note: str = ""
    keeps_memory: bool = False


@dataclass(frozen=True)
class Rival:
    """A way to compute the loss.

    Attributes:
        name: as the table prints it.
        build: makes its loss function for a problem and its cell.
        held: bytes it holds beyond the inputs in a cell, estimated from above: what does not fit is not tried.
        compiled: what it builds is compiled at the first call, and can be called with other tensors.
    """

    name: str
    build: Callable[[Any, Any], LossFunction]
    held: Callable[[Any], float]
    compiled: bool = False
