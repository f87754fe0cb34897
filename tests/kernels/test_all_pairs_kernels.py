"""The CUDA kernels of the loss over all pairs, in the emulator, under the sanitizers: the whole loss runs on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastccsa import functional, reference
from fastccsa.ops import all_pairs as _all_pairs
from fastccsa.ops import all_pairs_tiles as _all_pairs_tiles

from .cases import DTYPES, Layout, Schedule, as_it_is, column_major, every_other
from .emulated_all_pairs import NO_FAULT, EmulatedKernels, some
from .programs import Builder


@contextmanager
def emulated(program: Path, schedule: Schedule = Schedule(), waits: bool = True) -> Iterator[EmulatedKernels]:  # noqa: B008
    """Meanwhile the loss over all pairs runs on the emulated kernels; `waits`: the host looks at labels."""
    kernels = EmulatedKernels(program, schedule)
    with pytest.MonkeyPatch.context() as patch:
        kernels.replace_ops(patch)
        patch.setattr(_all_pairs, "FEW_PAIRS", 0)
        patch.setattr(_all_pairs, "PANELS_ON_CPU", False)
        patch.setattr(_all_pairs, "needs_to_wait", lambda *_: waits)
        patch.setattr(_all_pairs_tiles, "TILE_ROWS", 40)
        patch.setattr(_all_pairs_tiles, "TILE_COLUMNS", 75)
        yield kernels
    kernels.close()


def results(z: list[Tensor], y: list[Tensor], weight: Tensor | None, layout: Layout, module=functional) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in z]
    loss = module.contrastive_alignment(*map(layout, leaves), *y, weight, 6.0, "all")
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "not waiting"])
@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_they_give_what_the_definition_does(program: Path, dtype: torch.dtype, near: bool, waits: bool) -> None:
    """Ragged sizes, several tiles, layouts, with weights and without."""
    cases = [(1, 1, 1, as_it_is), (9, 33, 65, column_major), (70, 81, 7, every_other)]
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    with emulated(program, waits=waits):
        for rows1, rows2, width, layout in cases:
            z, y = some(rows1, rows2, width, dtype, near)
            weight = None if rows1 == 9 else torch.rand(3, 3, dtype=torch.float64)
            exact = results([x.double() for x in z], y, weight, as_it_is, reference)
            for mine, true in zip(results(z, y, weight, layout), exact, strict=True):
                rounding = max(tolerance, torch.finfo(mine.dtype).eps)
                torch.testing.assert_close(mine.double(), true, rtol=rounding, atol=rounding * true.abs().max().item())


@pytest.mark.parametrize("rows", [(3, 480), (1, 1300), (700, 3)], ids=str)
def test_few_rows_that_meet_many(program: Path, rows: tuple[int, int]) -> None:
    """Several warps a row, more than 32 words of bits, and near pairs in all of them."""
    z, y = some(*rows, 11, torch.float64, near=False)
    few, many = (0, 1) if rows[0] < rows[1] else (1, 0)
    nearest = z[few][torch.arange(rows[many]) % rows[few]]
    z[many] = nearest + 10.0 ** -(torch.arange(rows[many]) % 5)[:, None] * (z[many] - 2)
    weight = torch.rand(3, 3, dtype=torch.float64)
    expected = results(z, y, weight, as_it_is, reference)
    with emulated(program, waits=False):
        for mine, true in zip(results(z, y, weight, as_it_is), expected, strict=True):
            torch.testing.assert_close(mine, true, rtol=1e-9, atol=1e-10 * true.abs().max().item())


def test_labels_need_no_bound_without_weights(program: Path) -> None:
    z, (y1, y2) = some(30, 45, 9, torch.float64, near=True)
    y = [10**12 * (labels - 1) for labels in (y1, y2)]
    with emulated(program, waits=False) as kernels:
        for mine, true in zip(results(z, y, None, as_it_is), results(z, y, None, as_it_is, reference), strict=True):
            torch.testing.assert_close(mine, true, rtol=1e-10, atol=1e-12)
        assert kernels.fault == NO_FAULT


def test_more_classes_than_occur(program: Path) -> None:
    """Without waiting, each that there may be has a mean; more of them than a block has threads."""
    z, (y1, y2) = some(30, 45, 9, torch.float64, near=True)
    y = [y1 * 100 + 3, y2 * 100 + 3]
    weight = torch.rand(300, 300, dtype=torch.float64)
    with emulated(program, waits=False):
        for mine, true in zip(results(z, y, weight, as_it_is), results(z, y, weight, as_it_is, reference), strict=True):
            torch.testing.assert_close(mine, true, rtol=1e-10, atol=1e-12)


def test_terms_with_gradients_of_their_own(program: Path) -> None:
    z, y = some(50, 31, 20, torch.float64, near=True)
    weight = torch.rand(3, 3, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in z]
    with emulated(program, waits=False):
        terms = functional.contrastive_alignment_terms(*leaves, *y, weight, 6.0, "all", "sum")
    exact = [t.sum() for t in reference.pair_terms(*leaves, *y, weight, 6.0, "all")]
    for mine, true in zip(terms, exact, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-10, atol=0)
        gradients = torch.autograd.grad(mine, leaves, retain_graph=True)
        for a, b in zip(gradients, torch.autograd.grad(true, leaves, retain_graph=True), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * b.abs().max().item())


NAN = float("nan")
BROKEN = [
    ("target1", (44, -3), ("target1", 44, -3)),
    ("target1", (2, 3), ("target1", 2, 3)),
    ("target2", (70, 1 << 20), ("target2", 70, 1 << 20)),
    ("pair_weight", ((2, 1), NAN), ("pair_weight", None, 2 * 3 + 1)),
    ("pair_weight", ((1, 1), -0.5), ("pair_weight", 0, 1 * 3 + 1)),
]


@pytest.mark.parametrize(("argument", "change", "fault"), BROKEN)
def test_a_bad_value_is_reported_by_a_kernel(program: Path, argument: str, change: tuple, fault: tuple) -> None:
    """Nothing is read out of bounds; loss and gradients are NaN, so that no step is taken on them."""
    z, (y1, y2) = some(45, 81, 17, torch.float32, near=False)
    arguments = {"target1": y1, "target2": y2, "pair_weight": torch.rand(3, 3)}
    with emulated(program, waits=False) as kernels:
        assert results(z, [y1, y2], arguments["pair_weight"], as_it_is)[0].isfinite()
        assert kernels.fault == NO_FAULT
        arguments[argument][change[0]] = change[1]
        found = results(z, [y1, y2], arguments["pair_weight"], as_it_is)
        name, row, value = kernels.fault
        assert (name, value) == (fault[0], fault[2])
        assert row == fault[1] or (fault[1] is None and y1[row] == 2)
    assert all(x.isnan().all() for x in found)


SCHEDULES = [Schedule("reverse"), Schedule("random", 1), Schedule("random", 2, processors=3)]


def test_no_order_shows_in_a_bit(program: Path) -> None:
    z, y = some(45, 80, 40, torch.float32, near=True)
    weight = torch.rand(3, 3)
    for waits in (True, False):
        with emulated(program, waits=waits):
            expected = results(z, y, weight, as_it_is)
        for schedule in SCHEDULES:
            with emulated(program, schedule, waits):
                assert all(map(torch.equal, results(z, y, weight, as_it_is), expected))


def test_no_races(builder: Builder) -> None:
    program = builder.emulated("run_all_pairs_kernels", builder.races())
    z, y = some(20, 40, 33, torch.float32, near=True)
    for waits in (True, False):
        with emulated(program, Schedule(processors=2), waits):
            results(z, y, torch.rand(3, 3), as_it_is)
