"""The CUDA kernels of the loss over all pairs, in the emulator, under the sanitizers: the whole loss runs on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastccsa import _all_pairs, functional, reference

from .cases import DTYPES, Layout, Schedule, as_it_is, column_major, every_other
from .emulated_all_pairs import EmulatedKernels, some
from .programs import Builder


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
        patch.setattr(_all_pairs, "PANELS_ON_CPU", False)
        patch.setattr(_all_pairs, "TILE_ROWS", 40)
        patch.setattr(_all_pairs, "TILE_COLUMNS", 75)
        yield
    kernels.close()


def results(z: list[Tensor], y: list[Tensor], weight: Tensor | None, layout: Layout, module=functional) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in z]
    loss = module.contrastive_alignment(*map(layout, leaves), *y, weight, 6.0, "all")
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


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
