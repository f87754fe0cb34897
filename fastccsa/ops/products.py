"""Matrix products of float32 in the precision that was asked for.

Tensor cores multiply float32 as TF32, which keeps 11 of its 24 bits. ``"tf32x3"`` cuts each factor in two parts of
TF32, ``x = large + small`` but for 2^-23 of it, and adds up three of the four products of parts: what is left out is
2^-24 of ``|a||b|``. So it has about the accuracy of float32, for three products on tensor cores.

Processors multiply float32 as it is. There every choice gives that: a precision says what errors are acceptable, and
the exact products cost nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from fastccsa.ops.choices import Precision

__all__ = ["PRECISIONS", "Factor", "add_product", "factor", "products", "round_to_tf32", "split"]

PRECISIONS: tuple[str, ...] = get_args(Precision)


@contextmanager
def products(precision: str) -> Iterator[None]:
    """How torch multiplies float32 matrices on CUDA meanwhile."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision != "ieee"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@dataclass(frozen=True)
class Factor:
    """A matrix as its products need it: itself, or its parts, the large one first."""

    parts: tuple[Tensor, ...]

    def __getitem__(self, rows: slice) -> Factor:
        return Factor(tuple(part[rows] for part in self.parts))

    def t(self) -> Factor:
        """Transposed."""
        return Factor(tuple(part.t() for part in self.parts))


def factor(x: Tensor, precision: str) -> Factor:
    """Make the factor of [M, N]: two parts where tensor cores are to give the accuracy of float32."""
    in_parts = precision == "tf32x3" and x.is_cuda and x.dtype == torch.float32
    return split(x) if in_parts else Factor((x,))


def add_product(out: Tensor, a: Factor, b: Factor, alpha: float = 1.0, beta: float = 1.0) -> None:
    """``out = beta out + alpha a b``, of a and b in equally many parts; the smallest products first."""
    last = len(a.parts) - 1
    for order in range(last, -1, -1):
        for k in range(order + 1):
            torch.addmm(out, a.parts[order - k], b.parts[k], beta=beta, alpha=alpha, out=out)
            beta = 1.0


def split(x: Tensor) -> Factor:
    """Cut float32 in two parts that TF32 holds exactly."""
    large = round_to_tf32(x)
    return Factor((large, round_to_tf32(x - large)))


def round_to_tf32(x: Tensor) -> Tensor:
    """Round float32 to the 11 bits of TF32, to nearest; tensor cores would cut the others off.

    By Veltkamp's method (Numerische Mathematik, 1968): no bits are touched, so NaN stays NaN. Beyond 2^114 the result
    is NaN too, but the square of such a value is no float32 anyway.
    """
    shifted = x * (2.0**13 + 1)
    return shifted - (shifted - x)
