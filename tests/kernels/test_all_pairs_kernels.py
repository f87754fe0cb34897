"""The CUDA kernels of the loss over all pairs, in the emulator, under the sanitizers: the whole loss runs on them."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastccsa import _all_pairs, functional, reference

from .cases import DTYPES, ORDERS, SANITIZER_OPTIONS, Layout, Schedule, as_it_is, column_major, encode_view, every_other
from .programs import Builder

CLASSES, CENTRE, TILE, FINISH = range(4)


class EmulatedKernels:
    """Stands for the four ops of ``csrc/allpairs/op.cpp``: a program computes them, tensors go there and back."""

    def __init__(self, program: Path, schedule: Schedule) -> None:
        environment = os.environ | SANITIZER_OPTIONS
        self._process = subprocess.Popen([program], stdin=-1, stdout=-1, stderr=-1, env=environment)
        self._send(struct.pack("<3q", ORDERS.index(schedule.order), schedule.seed, schedule.processors))

    def close(self) -> None:
        _, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, errors.decode()[:4000]

    def classes(self, features: Tensor, order: Tensor, label: Tensor, offset: Tensor, *written: Tensor) -> None:
        sizes = struct.pack("<2q", *written[0].shape)
        self._call(CLASSES, features.dtype, sizes, (features, order, label, offset), written)

    def centre(self, features: Tensor, *arguments: Tensor) -> None:
        *given, rows, norms = arguments
        self._call(CENTRE, features.dtype, struct.pack("<2q", *features.shape), (features, *given), (rows, norms))

    def tile(self, *arguments: Tensor | float | None) -> None:
        z1, z2, order1, order2, label1, label2, norm1, norm2, weight, margin, begin1, begin2, values, *rest = arguments
        *written, _ = rest
        classes = 0 if weight is None else len(weight)
        sizes = struct.pack("<6qd", begin1, begin2, *values.shape, z1.shape[1], classes, margin)
        close = torch.empty(values.shape[0] * -(-values.shape[1] // 32), dtype=torch.int32)
        given = (z1, z2, order1, order2, label1, label2, norm1, norm2, weight)
        self._call(TILE, z1.dtype, sizes, given, (values, *written), (close,))

    def finish(self, features: Tensor, *arguments: Tensor | float) -> None:
        *given, scale, gradient = arguments
        sizes = struct.pack("<3qd", *features.shape, len(gradient) == 2, scale)
        self._call(FINISH, features.dtype, sizes, (features, *given), (gradient,))

    def _call(
        self, op: int, dtype: torch.dtype, sizes: bytes, given: tuple, written: tuple, scratch: tuple = ()
    ) -> None:
        tensors = [encode_view(None if x is None else x.detach()) for x in (*given, *written, *scratch)]
        self._send(struct.pack("<2q", op, DTYPES.index(dtype)) + sizes + b"".join(tensors))
        for tensor in written:
            (count,) = struct.unpack("<q", self._receive(8))
            content = self._receive(count)
            if tensor is not None and count > 0:
                tensor.copy_(torch.frombuffer(bytearray(content), dtype=tensor.dtype).view(tensor.shape))

    def _send(self, content: bytes) -> None:
        self._process.stdin.write(content)
        self._process.stdin.flush()

    def _receive(self, count: int) -> bytes:
        content = self._process.stdout.read(count)
        if len(content) < count:
            pytest.fail(self._process.stderr.read().decode()[:4000], pytrace=False)
        return content


@contextmanager
def emulated(program: Path, schedule: Schedule = Schedule()) -> Iterator[None]:  # noqa: B008 - frozen
    """Meanwhile the loss over all pairs runs on the emulated kernels."""
    kernels = EmulatedKernels(program, schedule)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_all_pairs, "_classes", kernels.classes)
        patch.setattr(_all_pairs, "_centre", kernels.centre)
        patch.setattr(_all_pairs, "_tile", kernels.tile)
        patch.setattr(_all_pairs, "_finish", kernels.finish)
        patch.setattr(_all_pairs, "FEW_PAIRS", 0)
        patch.setattr(_all_pairs, "TILE_ROWS", 40)
        patch.setattr(_all_pairs, "TILE_COLUMNS", 75)
        yield
    kernels.close()


def results(z: list[Tensor], y: list[Tensor], weight: Tensor | None, layout: Layout, module=functional) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in z]
    loss = module.contrastive_alignment(*map(layout, leaves), *y, weight, 6.0, "all")
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


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


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_they_give_what_the_definition_does(program: Path, dtype: torch.dtype, near: bool) -> None:
    """Ragged sizes, several tiles, layouts, with weights and without."""
    cases = [(1, 1, 1, as_it_is), (9, 33, 65, column_major), (70, 81, 7, every_other)]
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    with emulated(program):
        for rows1, rows2, width, layout in cases:
            z, y = some(rows1, rows2, width, dtype, near)
            weight = None if rows1 == 9 else torch.rand(3, 3, dtype=torch.float64)
            exact = results([x.double() for x in z], y, weight, as_it_is, reference)
            for mine, true in zip(results(z, y, weight, layout), exact, strict=True):
                rounding = max(tolerance, torch.finfo(mine.dtype).eps)
                torch.testing.assert_close(mine.double(), true, rtol=rounding, atol=rounding * true.abs().max().item())


SCHEDULES = [Schedule("reverse"), Schedule("random", 1), Schedule("random", 2, processors=3)]


def test_no_order_shows_in_a_bit(program: Path) -> None:
    z, y = some(45, 80, 40, torch.float32, near=True)
    with emulated(program):
        expected = results(z, y, None, as_it_is)
    for schedule in SCHEDULES:
        with emulated(program, schedule):
            for a, b in zip(results(z, y, None, as_it_is), expected, strict=True):
                assert torch.equal(a, b)


def test_no_races(builder: Builder) -> None:
    program = builder.emulated("run_all_pairs_kernels", builder.races())
    z, y = some(20, 40, 33, torch.float32, near=True)
    with emulated(program, Schedule(processors=2)):
        results(z, y, None, as_it_is)
