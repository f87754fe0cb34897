"""The kernels for 16-bit features of more than 512 columns, in the emulator under sanitizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from .cases import Layout, Schedule, as_it_is, row_aligned, shifted
from .emulated_all_pairs import Limits, emulated
from .programs import Builder
from .test_fused_kernels import (
    DTYPES,
    MARGIN,
    Case,
    assert_right,
    both_orders,
    case,
    every_dtype,
    limits,
    with_near_rows,
)

KERNELS = ("stored 512", "stored mma")
every_kernel = pytest.mark.parametrize("kernel", KERNELS)


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


def check(program: Path, c: Case, limits: Limits, sides: Sequence[int] = (0, 1), per_term: bool = False) -> None:
    output_mask = sum(1 << k for k in sides)
    with emulated(program) as loss:
        found = loss.compute(
            *c.tensors, labels=c.labels, margin=c.margin, mean=False, output_mask=output_mask, per_term=per_term,
            limits=limits,
        )  # fmt: skip
    assert_right(c, found, per_term, sides)
    assert all(len(found.gradients[k]) == 0 for k in range(2) if k not in sides)


@both_orders
@every_dtype
@every_kernel
@pytest.mark.parametrize(
    ("rows", "width", "blocks"),
    [((1, 1), 640, 1), ((140, 280), 520, 4), ((270, 70), 1023, 60), ((60, 130), 776, 100), ((40, 50), 1100, 2)],
)
def test_results_equal_the_definition(
    program: Path, kernel: str, rows: tuple[int, int], width: int, blocks: int, dtype: torch.dtype, by_class: bool
) -> None:
    """Ragged sizes; clusters without their last tiles of rows, of columns, and of both; narrow and wide gradients."""
    check(program, case(*rows, width, dtype, weighted=width % 2 == 0), limits(kernel, blocks, by_class))


@every_kernel
@pytest.mark.parametrize("layout", [as_it_is, row_aligned, shifted])
def test_layouts(program: Path, kernel: str, layout: Layout) -> None:
    """Rows are copied 16 bytes at a time, or value by value."""
    c = case(30, 40, 1048, torch.bfloat16)
    check(program, replace(c, z1=layout(c.z1), z2=layout(c.z2)), limits(kernel, 1, by_class=False))


@both_orders
@every_kernel
def test_terms_apart_and_requested_gradients(program: Path, kernel: str, by_class: bool) -> None:
    c = case(50, 140, 600, torch.bfloat16)
    for sides in ((), (0,), (1,), (0, 1)):
        for per_term in (False, True):
            check(program, c, limits(kernel, 3, by_class), sides, per_term)


def in_runs(rows1: Sequence[int], rows2: Sequence[int], width: int) -> Case:
    """Return a case with this many rows of each class on each side, in the order of the classes."""
    made = case(sum(rows1), sum(rows2), width, torch.bfloat16, classes=len(rows1))
    y1, y2 = (torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows)) for rows in (rows1, rows2))
    return replace(made, y1=y1, y2=y2)


SKIPPED = {
    "by blocks of a cluster": ((128, 128, 0), (128, 384, 70)),  # of the first tiles, and of both columns
    "by blocks with the same columns": ((256, 0), (128, 100)),
    "by both teams before their first": ((128, 100), (512, 100)),
    "by a whole cluster": ((256, 30), (256, 100)),
    "all": ((128,), (256,)),
}


@every_kernel
@pytest.mark.parametrize("skipped", SKIPPED)
def test_tiles_of_one_class_are_skipped(program: Path, kernel: str, skipped: str) -> None:
    check(program, in_runs(*SKIPPED[skipped], 580), limits(kernel, 1, by_class=True))


@both_orders
@every_kernel
def test_parts_whose_coefficients_are_stored_in_turn(program: Path, kernel: str, by_class: bool) -> None:
    """Two parts of rows and two of columns, of 256 each; the last ones have one tile."""
    check(program, case(270, 300, 530, torch.bfloat16, classes=3), limits(kernel, 4, by_class))


@both_orders
@every_kernel
def test_near_equal_and_distant_points(program: Path, kernel: str, by_class: bool) -> None:
    """Pairs at every share of their norms, by columns of the last slab; equal rows; and rows far from the origin."""
    for dtype, offset in zip(DTYPES, (0.0, 4.0), strict=True):
        c = with_near_rows(case(70, 90, 1030, dtype, offset=offset), 6)
        check(program, c, limits(kernel, 3, by_class))


@both_orders
@every_kernel
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_reach_the_loss(program: Path, kernel: str, bad: float, by_class: bool) -> None:
    c = case(40, 30, 700, torch.bfloat16, weighted=False)
    c.z1[20, 690] = bad
    with emulated(program) as loss:
        found = loss.compute(*c.tensors, labels=4, margin=MARGIN, mean=False, limits=limits(kernel, 2, by_class))
    assert not found.loss.isfinite()
    if math.isnan(bad):
        assert found.terms.isnan().all()


# ---- order of execution ----


@both_orders
@every_kernel
def test_the_same_bits_in_every_order(program: Path, kernel: str, by_class: bool) -> None:
    c = case(150, 270, 600, torch.bfloat16)
    results = []
    for schedule in (Schedule(), Schedule("reverse", processors=2), Schedule("random", seed=3, processors=3)):
        with emulated(program, schedule) as loss:
            found = loss.compute(*c.tensors, margin=MARGIN, limits=limits(kernel, 3, by_class))
        results.append([found.loss, found.terms, *found.gradients])
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


@every_kernel
def test_no_races(builder: Builder, kernel: str) -> None:
    """As given; and by class, with tiles that blocks of a cluster skip."""
    program = builder.emulated("run_all_pairs_kernels", builder.races())
    cases = ((case(140, 270, 600, torch.bfloat16), False), (in_runs(*SKIPPED["by blocks of a cluster"], 580), True))
    for c, by_class in cases:
        with emulated(program, Schedule("random", seed=1, processors=2)) as loss:
            found = loss.compute(*c.tensors, margin=MARGIN, mean=False, limits=limits(kernel, 3, by_class))
        assert_right(c, found, per_term=False)
