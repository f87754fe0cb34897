"""The CUDA kernels of the loss over all pairs, in the emulator, in place of the ops; and inputs for them."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastccsa.ops import all_pairs_tiles as _all_pairs_tiles

from .cases import DTYPES, FAULTS, ORDERS, SANITIZER_OPTIONS, Schedule, encode_view

LABELS, CLASSES, ALIGN, CENTRE, TILE, FINISH, TERMS, DIRECT = range(8)

NO_FAULT = (None, 0, 0)


def nothing(*shape: int, dtype: torch.dtype) -> Tensor:
    """NaN, so that what is never written shows."""
    return torch.full(shape, torch.nan, dtype=dtype)


class EmulatedKernels:
    """Stands for the ops of ``csrc/all_pairs/op.cpp``: a program computes them, tensors go there and back.

    `fault`: the argument, row and value that a kernel reported last.
    """

    def __init__(self, program: Path, schedule: Schedule) -> None:
        environment = os.environ | SANITIZER_OPTIONS
        self._process = subprocess.Popen([program], stdin=-1, stdout=-1, stderr=-1, env=environment)
        self.fault = NO_FAULT
        self._send(struct.pack("<3q", ORDERS.index(schedule.order), schedule.seed, schedule.processors))

    def close(self) -> None:
        _, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, errors.decode()[:4000]

    def replace_ops(self, patch: pytest.MonkeyPatch) -> None:
        """Have the tiles' code call these."""
        for name in ("labels", "classes", "align", "centre", "tile", "finish", "terms"):
            patch.setattr(_all_pairs_tiles, f"_{name}", getattr(self, name))

    def labels(self, y1: Tensor, y2: Tensor, classes: int, *written: Tensor) -> None:
        sizes = struct.pack("<3q", len(y1), len(y2), classes)
        self._call_that_may_report(LABELS, written[-1].dtype, sizes, (y1, y2), written)

    def classes(self, features: Tensor, order: Tensor, label: Tensor, offset: Tensor, *written: Tensor) -> None:
        sizes = struct.pack("<2q", *written[0].shape)
        self._call(CLASSES, features.dtype, sizes, (features, order, label, offset), written)

    def align(self, *arguments: Tensor | None) -> None:
        given, written = arguments[:7], arguments[7:]
        sizes = struct.pack("<3q", *given[0].shape, given[2].shape[1])
        self._call_that_may_report(ALIGN, written[3].dtype, sizes, given, written)

    def centre(self, features: Tensor, *arguments: Tensor) -> None:
        *given, rows, norms = arguments
        self._call(CENTRE, features.dtype, struct.pack("<2q", *features.shape), (features, *given), (rows, norms))

    def tile(self, *arguments: Tensor | float | None) -> None:
        z1, z2, order1, order2, label1, label2, norm1, norm2, weight, margin, begin1, begin2, values, *rest = arguments
        *written, _, _, doubt = rest
        classes = 0 if weight is None else len(weight)
        sizes = struct.pack("<6qd", begin1, begin2, *values.shape, z1.shape[1], classes, margin)
        rows, columns = values.shape
        close = torch.empty(rows * -(-columns // 32), dtype=torch.int32)
        partial = nothing(2, -(-columns // _all_pairs_tiles._CHUNK_OF_A_WARP), rows, dtype=torch.float64)
        given = (z1, z2, order1, order2, label1, label2, norm1, norm2, weight)
        self._call_that_may_report(TILE, z1.dtype, sizes, given, (values, *written, close, partial, doubt))

    def finish(self, features: Tensor, *arguments: Tensor | float) -> None:
        *given, scale, doubt, gradient = arguments
        sizes = struct.pack("<3qd", *features.shape, len(gradient) == 2, scale)
        self._call(FINISH, features.dtype, sizes, (features, *given, doubt), (gradient,))

    def terms(
        self, alignment: Tensor, separation: Tensor, scale: float, doubt: Tensor | None, loss: Tensor, terms: Tensor
    ) -> None:
        sizes = struct.pack("<2qd", len(alignment), len(separation), scale)
        self._call(TERMS, loss.dtype, sizes, (alignment, separation, doubt), (loss, terms))

    def direct(
        self, z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float, scale: float,
        wanted: int, apart: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
        """As `_all_pairs._few_pairs`; what the kernel reports is left in `fault`."""
        acc = torch.float64 if z1.dtype == torch.float64 else torch.float32
        planes = 2 if apart else 1
        sizes = (len(z1), len(z2), z1.shape[1], 0 if weight is None else len(weight), apart)
        blocks = -(-len(z1) // 4) * -(-len(z2) // 32)
        scratch = (nothing(len(z1), len(z2), dtype=acc), nothing(2, blocks, dtype=torch.float64))
        loss, terms = nothing(dtype=acc), nothing(2, dtype=acc)
        gradients = [nothing(planes, *z.shape, dtype=acc) if wanted >> k & 1 else None for k, z in enumerate((z1, z2))]
        self.fault = NO_FAULT
        self._call_that_may_report(
            DIRECT, z1.dtype, struct.pack("<5q2d", *sizes, margin, scale), (z1, z2, y1, y2, weight, *scratch),
            (loss, terms, *gradients),
        )  # fmt: skip
        g1, g2 = (
            z1.new_empty((0, *z.shape), dtype=acc) if g is None else g for g, z in zip(gradients, (z1, z2), strict=True)
        )
        return loss, terms, g1, g2

    def _call_that_may_report(self, op: int, dtype: torch.dtype, sizes: bytes, given: tuple, written: tuple) -> None:
        fault = torch.zeros(3, dtype=torch.int64)
        self._call(op, dtype, sizes, given, (*written, fault))
        if fault[0] != 0:
            self.fault = (FAULTS[int(fault[0])], *fault[1:].tolist())

    def _call(self, op: int, dtype: torch.dtype, sizes: bytes, given: tuple, written: tuple) -> None:
        tensors = [encode_view(None if x is None else x.detach()) for x in (*given, *written)]
        self._send(struct.pack("<2q", op, DTYPES.index(dtype)) + sizes + b"".join(tensors))
        for tensor in written:
            (count,) = struct.unpack("<q", self._receive(8))
            content = self._receive(count)
            if tensor is not None and count > 0:
                storage = torch.frombuffer(bytearray(content), dtype=tensor.dtype)
                tensor.copy_(storage[tensor.storage_offset() :].view(tensor.shape))

    def _send(self, content: bytes) -> None:
        self._process.stdin.write(content)
        self._process.stdin.flush()

    def _receive(self, count: int) -> bytes:
        content = self._process.stdout.read(count)
        if len(content) < count:
            pytest.fail(self._process.stderr.read().decode()[:4000], pytrace=False)
        return content


def some(rows1: int, rows2: int, width: int, dtype: torch.dtype, near: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Features and labels; `near`: the second side's points lie at the first's, at every share of the norms."""
    random = torch.Generator().manual_seed(rows1 + width)
    z = [5 / width**0.5 * torch.randn(n, width, generator=random, dtype=torch.float64) + 2 for n in (rows1, rows2)]
    if near:
        count = min(rows1, rows2)
        steps = torch.logspace(-4, 0.5, count, dtype=torch.float64)[:, None]
        z[1][:count] = z[0][:count] + steps * torch.randn(count, width, generator=random, dtype=torch.float64)
        z[1][0] = z[0][0]
    return [x.to(dtype) for x in z], [torch.randint(3, (n,), generator=random) for n in (rows1, rows2)]
