"""Runs the loss over all pairs on CUDA in the emulator: a program executes its host code and its kernels."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from fastccsa.ops import all_pairs as _all_pairs
from fastccsa.ops.choices import Precision

from .cases import DTYPES, FAULTS, ORDERS, SANITIZER_OPTIONS, Schedule, accumulator, encode_view

PRECISIONS = get_args(Precision)  # in the order of the C++ enum
NO_FAULT = (None, 0, 0)


@dataclass(frozen=True)
class Limits:
    """Limits that decide how the loss is computed: pair by pair, or by products, in tiles of which size."""

    few_pairs: int = 0
    tile: tuple[int, int] = (40, 75)  # for kernels in parts, whole tiles of 128
    fused: tuple[int, int] = (-1, 0)  # the position of a fused kernel, and how many of its blocks run at once
    sorted: bool = False  # for fused kernels: whether rows are sorted by class
    stored_part: int = 256  # for those that store coefficients: of how many rows and columns at a time


PRODUCTS = Limits()
PAIR_BY_PAIR = Limits(few_pairs=1 << 62)


@dataclass(frozen=True)
class Outcome:
    """The results of a request, and how they were computed."""

    loss: Tensor
    terms: Tensor
    gradients: tuple[Tensor, Tensor]  # [planes, N, D]
    reported: tuple[str | None, int, int]  # the bad argument, row and value that a kernel reported
    tiles: list[tuple[slice, slice]]  # of sorted rows
    centre: Tensor  # [D] float64, subtracted from rows before products; [0]: nothing was


class EmulatedLoss:
    """A running program. It can also replace the op: see `replaces_op`."""

    def __init__(self, program: Path, schedule: Schedule = Schedule()) -> None:  # noqa: B008 - frozen
        environment = os.environ | SANITIZER_OPTIONS
        self._process = subprocess.Popen([program], stdin=-1, stdout=-1, stderr=-1, env=environment)
        self._send(struct.pack("<3q", ORDERS.index(schedule.order), schedule.seed, schedule.processors))

    def close(self) -> None:
        _, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, errors.decode()[:4000]

    def compute(
        self, z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, *, labels: int = 0, margin: float,
        mean: bool = True, output_mask: int = 3, per_term: bool = False, precision: str = "ieee",
        limits: Limits = PRODUCTS,
    ) -> Outcome:  # fmt: skip
        """Compute the loss with its gradients; the arguments are those of the op."""
        acc = accumulator(z1.dtype)
        sizes = (len(z1), len(z2), z1.shape[1], labels if weight is None else len(weight))
        options = (output_mask, per_term, PRECISIONS.index(precision))
        chosen = (limits.few_pairs, *limits.tile, *limits.fused, limits.sorted, limits.stored_part)
        scale = 1 / (len(z1) * len(z2)) if mean else 1.0
        head = struct.pack("<15q2d", DTYPES.index(z1.dtype), *sizes, *options, *chosen, margin, scale)
        self._send(head + b"".join(encode_view(None if x is None else x.detach()) for x in (z1, z2, y1, y2, weight)))
        reported = self._fault()
        tiles = [
            (slice(row, row + rows), slice(column, column + columns))
            for row, rows, column, columns in struct.iter_unpack("<4q", self._block())
        ]
        centre = self._tensor(torch.float64, (-1,))
        loss, terms = self._tensor(acc, ()), self._tensor(acc, (2,))
        gradients = [
            self._tensor(acc, ((1 + per_term) * (output_mask >> side & 1), *z.shape)) for side, z in enumerate((z1, z2))
        ]
        return Outcome(loss, terms, (gradients[0], gradients[1]), reported, tiles, centre)

    @contextmanager
    def replaces_op(self, limits: Limits) -> Iterator[None]:
        """Let the program compute fastccsa's losses over all pairs."""

        def op(*tensors: Tensor | None, **options: object) -> tuple[Tensor, ...]:
            found = self.compute(*tensors, **options, limits=limits)
            assert found.reported == NO_FAULT
            return found.loss, found.terms, *found.gradients

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_all_pairs, "_op", op)
            yield

    def _fault(self) -> tuple[str | None, int, int]:
        fault, row, value = struct.unpack("<3q", self._block())
        return FAULTS[fault], row, value

    def _tensor(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        content = bytearray(self._block())
        return (
            torch.frombuffer(content, dtype=dtype).view(shape) if content else torch.empty(0, dtype=dtype).view(shape)
        )

    def _send(self, content: bytes) -> None:
        self._process.stdin.write(content)
        self._process.stdin.flush()

    def _block(self) -> bytes:
        (count,) = struct.unpack("<q", self._receive(8))
        return self._receive(count)

    def _receive(self, count: int) -> bytes:
        content = self._process.stdout.read(count)
        if len(content) < count:
            pytest.fail(self._process.stderr.read().decode()[:4000], pytrace=False)
        return content


@contextmanager
def emulated(program: Path, schedule: Schedule = Schedule()) -> Iterator[EmulatedLoss]:  # noqa: B008 - frozen
    """Run a program; a report of a sanitizer fails the test."""
    loss = EmulatedLoss(program, schedule)
    yield loss
    loss.close()


def some(rows1: int, rows2: int, width: int, dtype: torch.dtype, near: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Return features and labels. `near`: points of side 2 are near those of side 1, at every share of the norms."""
    random = torch.Generator().manual_seed(rows1 + width)
    spread = 5 / max(width, 1) ** 0.5
    z = [spread * torch.randn(n, width, generator=random, dtype=torch.float64) + 2 for n in (rows1, rows2)]
    if near:
        count = min(rows1, rows2)
        steps = torch.logspace(-4, 0.5, count, dtype=torch.float64)[:, None]
        z[1][:count] = z[0][:count] + steps * torch.randn(count, width, generator=random, dtype=torch.float64)
        z[1][0] = z[0][0]
    return [x.to(dtype) for x in z], [torch.randint(3, (n,), generator=random) for n in (rows1, rows2)]
