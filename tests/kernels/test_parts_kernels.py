"""The kernels that multiply float32 features in 16-bit parts on Hopper GPUs, in the emulator under sanitizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastccsa import reference

from ..pairs_by_definition import PARTS, exactly_in_parts
from .cases import Schedule, column_major, every_other
from .emulated_all_pairs import NO_FAULT, EmulatedLoss, Limits, Outcome, emulated, some
from .programs import Builder
from .test_all_pairs_accuracy import POINTS, Points, assert_promise, gradients

MARGIN = 8.0
STORED = 9  # the position of kStored among the fused kernels
IN_PARTS = Limits(tile=(256, 256), fused=(STORED, 3))  # pairs whose coefficients are stored at a time
IN_RUNS = Limits(tile=(256, 256), fused=(STORED, 1))  # a block of threads has several tiles, one after the other

every_precision = pytest.mark.parametrize("precision", PARTS)
KERNELS = {precision: (precision, 257, IN_PARTS) for precision in PARTS} | {"tf32, wide": ("tf32", 600, IN_RUNS)}
every_kernel = pytest.mark.parametrize(("precision", "width", "limits"), KERNELS.values(), ids=KERNELS)


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


def pairs(
    rows1: int, rows2: int, width: int, near: bool = False, weighted: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    z, y = some(rows1, rows2, width, torch.float32, near)
    random = torch.Generator().manual_seed(rows2)
    return (*z, *y, torch.rand(3, 3, generator=random) if weighted else None)


def compute(loss: EmulatedLoss, sides: tuple[Tensor | None, ...], precision: str, **options: object) -> Outcome:
    options = {"mean": False, "margin": MARGIN, "limits": IN_PARTS, **options}
    return loss.compute(*sides, labels=3, precision=precision, **options)


def assert_right(
    sides: tuple[Tensor | None, ...], found: Outcome, precision: str, per_term: bool = False, margin: float = MARGIN
) -> None:
    assert found.reported == NO_FAULT
    exact = exactly_in_parts(*sides, margin, precision)
    assert ((found.terms.double() - exact.terms).abs() <= exact.term_bounds + 1e-30).all()
    torch.testing.assert_close(found.loss, found.terms.sum())
    for side, found_gradient in enumerate(found.gradients):
        expected, bound = exact.gradients[side], exact.bounds[side]
        if not per_term:
            expected, bound = expected.sum(0, keepdim=True), bound.sum(0, keepdim=True)
        error = (found_gradient.double() - expected).abs()
        assert (error <= bound).all(), f"a gradient of side {side} is off by {(error / bound).max():.3g} of its bound"


# ---- values ----


@every_precision
def test_results_equal_the_definition(program: Path, precision: str) -> None:
    """Ragged sizes, one tile or several, and a row of tiles that is alone in its cluster."""
    with emulated(program) as loss:
        for sides in (pairs(1, 3, 257, weighted=False), pairs(140, 70, 300), pairs(33, 150, 501, near=True)):
            assert_right(sides, compute(loss, sides, precision), precision)


@every_precision
@pytest.mark.parametrize("widths", [(1, 64, 128), (70, 200), (256, 520), (776, 1100)], ids=str)
def test_every_width(program: Path, precision: str, widths: tuple[int, ...]) -> None:
    """One slab, a few, and more than stay of the rows in a single part; ranges of gradients that end early.

    A block of threads has two tiles, and the other one of its cluster has none.
    """
    with emulated(program) as loss:
        for width in widths:
            sides = pairs(70, 140, width, near=True)
            assert_right(sides, compute(loss, sides, precision, limits=IN_RUNS), precision)


@pytest.mark.parametrize(
    ("rows", "width"), [((290, 60), 260), ((60, 290), 260), ((270, 260), 260), ((60, 290), 600)], ids=str
)
def test_several_parts_of_the_pairs(program: Path, rows: tuple[int, int], width: int) -> None:
    """Sums, products and the loss are added over parts, also those of close pairs."""
    sides = pairs(*rows, width, near=True)
    with emulated(program) as loss:
        found = compute(loss, sides, "tf32")
    assert_right(sides, found, "tf32")
    assert len(found.tiles) > 1


def test_far_pairs_are_computed_by_products(program: Path) -> None:
    """Their errors are those of 11 bits.

    If products began before their rows have arrived, distances would be NaN here, and computed from differences.
    """
    errors = []
    with emulated(program) as loss:
        for width in (65, 128, 300, 512, 577, 640):
            z1, z2, *_ = pairs(1, 2, width)
            sides = (z1, z2, torch.zeros(1, dtype=torch.int64), torch.ones(2, dtype=torch.int64), None)
            found = compute(loss, sides, "tf32", margin=10.0).terms[1]
            exact = exactly_in_parts(*sides, 10.0, "tf32").terms[1]
            errors.append((found.double() - exact) / exact)
    # Factors are off by 2^-13 on average, sums of products by a few of it over the root of the width.
    assert torch.stack(errors).square().mean().sqrt() > 2.0**-20


def test_groups_of_rows(program: Path) -> None:
    """Wide rows: blocks of threads are numbered by two clusters of tiles of rows, of which there are three."""
    sides = pairs(520, 140, 513)
    with emulated(program) as loss:
        limits = Limits(tile=(640, 256), fused=(STORED, 16))
        assert_right(sides, compute(loss, sides, "tf32", limits=limits), "tf32")


@every_precision
def test_each_term_has_its_own_gradient(program: Path, precision: str) -> None:
    sides = pairs(70, 40, 300, near=True)
    with emulated(program) as loss:
        found = compute(loss, sides, precision, per_term=True)
    assert_right(sides, found, precision, per_term=True)


@every_precision
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_near_equal_and_distant_points(program: Path, precision: str, offset: float) -> None:
    """Pairs at every share of their norms, equal rows, and rows far from the origin."""
    z1, _, y1, y2, weight = pairs(70, 80, 300)
    random = torch.Generator().manual_seed(1)
    z2 = torch.randn(80, 300, generator=random) * 0.3 + 2
    steps = torch.logspace(-4, 0.5, 60)[:, None]
    z2[:60] = z1[:60] + steps * torch.randn(60, 300, generator=random) / 300**0.5
    z2[60:70] = z1[60:70]
    sides = (z1 + offset, z2 + offset, y1, y2, weight)
    with emulated(program) as loss:
        assert_right(sides, compute(loss, sides, precision), precision)


@pytest.mark.parametrize("points", POINTS, ids=lambda points: points.__name__)
def test_ieee_keeps_its_promise(program: Path, points: Points) -> None:
    """Errors are at most twice those of differences. Sums are rounded here, where tensor cores cut them off."""
    found, plain, exact = [], [], []
    with emulated(program) as loss:
        for seed in range(2):
            random = torch.Generator().manual_seed(seed)
            x, other = torch.randn(2, 50, 260, generator=random, dtype=torch.float64)
            z = [part.float() for part in points(x, other, random)]
            y = [torch.randint(4, (50,), generator=random) for _ in "12"]
            with loss.replaces_op(IN_PARTS):
                found.append(gradients(z, y, 24.0))
            plain.append(gradients(z, y, 24.0, reference))
            exact.append(gradients([part.double() for part in z], y, 24.0, reference))
    assert_promise(found, plain, exact)


def test_ieee_keeps_its_promise_for_wide_rows(program: Path) -> None:
    """Classes at opposite places: products have one sign, and sums grow with each of 2048 columns."""
    random = torch.Generator().manual_seed(0)
    place = torch.randn(1, 2048, generator=random, dtype=torch.float64).sign()
    z, y = [], []
    for count in (6, 10):
        labels = torch.arange(count) % 2
        noise = 0.1 * torch.randn(count, 2048, generator=random, dtype=torch.float64)
        z.append(((2 * labels[:, None] - 1) * place + noise).float())
        y.append(labels)
    with emulated(program) as loss, loss.replaces_op(IN_PARTS):
        found = gradients(z, y, 100.0)
    exact = gradients([part.double() for part in z], y, 100.0, reference)
    assert_promise([found], [gradients(z, y, 100.0, reference)], [exact])


@pytest.mark.parametrize(
    ("precision", "width", "limits"), [("bf16x3", 257, IN_PARTS), ("tf32", 600, IN_RUNS)], ids=["bf16x3", "tf32, wide"]
)
def test_classes(program: Path, precision: str, width: int, limits: Limits) -> None:
    """One class, so that every tile is left out; one class on a side; and tiles of one class beside others."""
    z1, z2, *_ = pairs(150, 270, width)
    weight = torch.rand(3, 3, generator=torch.Generator().manual_seed(0))
    some_of = torch.arange(150) // 130, torch.arange(270) // 130
    with emulated(program) as loss:
        for y1, y2 in ((some_of[0] * 0, some_of[1] * 0), (some_of[0] * 0, some_of[1]), some_of):
            sides = (z1, z2, y1, y2, weight)
            assert_right(sides, compute(loss, sides, precision, limits=limits), precision)


@pytest.mark.parametrize("limits", [IN_PARTS, IN_RUNS], ids=["in parts", "in runs"])
@pytest.mark.parametrize("precision", ["bf16x3", "tf32"])
def test_a_block_that_leaves_out_all_of_its_tiles(program: Path, precision: str, limits: Limits) -> None:
    """The other one of its cluster does not. No copy may be under way to the memory of one that has ended."""
    z1, z2, *_ = pairs(150, 100, 600)
    sides = (z1, z2, torch.arange(150) // 130, torch.zeros(100, dtype=torch.int64), None)
    with emulated(program) as loss:
        assert_right(sides, compute(loss, sides, precision, limits=limits), precision)


@pytest.mark.parametrize("size", [1e-15, 1e-9, 1e9, 1e15])
def test_scales_of_float16(program: Path, size: float) -> None:
    """float16 has neither these values nor these coefficients."""
    z1, z2, y1, y2, weight = pairs(60, 50, 300)
    sides = (z1 * size, z2 * size, y1, y2, weight * 1e4)
    with emulated(program) as loss:
        found = compute(loss, sides, "tf32", margin=MARGIN * size)
    unit = tuple(x / size for x in found.gradients)
    expected = exactly_in_parts(z1, z2, y1, y2, weight * 1e4, MARGIN, "tf32")
    # The bounds' roundings of float32 are relative, but not where results have no more bits.
    for gradient, true, bound in zip(unit, expected.gradients, expected.bounds, strict=True):
        slack = torch.finfo(torch.float32).smallest_normal / size
        assert ((gradient.double() - true.sum(0)).abs() <= 2 * bound.sum(0) + slack).all()


@pytest.mark.parametrize(("layout1", "layout2"), [(column_major, every_other), (every_other, column_major)])
def test_layouts(program: Path, layout1: Callable[[Tensor], Tensor], layout2: Callable[[Tensor], Tensor]) -> None:
    z1, z2, *labels = pairs(30, 20, 258)
    with emulated(program) as loss:
        found = compute(loss, (layout1(z1), layout2(z2), *labels), "bf16x3")
        assert_right((z1, z2, *labels), found, "bf16x3")


# ---- what is computed ----


@every_precision
@pytest.mark.parametrize("output_mask", [0, 1, 2])
def test_only_requested_gradients_are_computed(program: Path, precision: str, output_mask: int) -> None:
    """They have the same bits as when both are requested."""
    sides = pairs(45, 140, 257, near=True)
    with emulated(program) as loss:
        whole, found = (compute(loss, sides, precision, output_mask=mask) for mask in (3, output_mask))
    assert torch.equal(found.terms, whole.terms)
    for side in range(2):
        if output_mask >> side & 1:
            assert torch.equal(found.gradients[side], whole.gradients[side])
        else:
            assert len(found.gradients[side]) == 0


@every_precision
@pytest.mark.parametrize(("value", "width"), [(float("nan"), 300), (float("inf"), 300), (float("nan"), 577)])
def test_values_that_are_not_finite(program: Path, precision: str, value: float, width: int) -> None:
    """NaN reaches the loss and both gradients. An infinite row is beyond the margin of rows of other classes."""
    z1, z2, y1, y2, weight = pairs(40, 140, width)
    z2[3, width - 1] = value
    with emulated(program) as loss:
        found = compute(loss, (z1, z2, y1, y2, weight), precision)
    assert found.reported == NO_FAULT
    assert not found.loss.isfinite()
    assert not found.gradients[0].isfinite().all()
    assert not found.gradients[1][0, 3].isfinite().all()


def test_bad_labels_are_reported(program: Path) -> None:
    z1, z2, y1, y2, weight = pairs(40, 30, 260)
    y2[17] = 3
    with emulated(program) as loss:
        found = compute(loss, (z1, z2, y1, y2, weight), "bf16x3")
    assert found.reported == ("target2", 17, 3)
    assert all(x.isnan().all() for x in (found.loss, *found.gradients))


# ---- schedules ----


@every_kernel
def test_results_do_not_depend_on_the_schedule(program: Path, precision: str, width: int, limits: Limits) -> None:
    sides = pairs(140, 150, width, near=True)
    results = []
    for schedule in (Schedule(), Schedule("random", seed=3, processors=3)):
        with emulated(program, schedule) as loss:
            found = compute(loss, sides, precision, limits=limits)
        results.append([found.loss, found.terms, *found.gradients])
    assert all(map(torch.equal, *results))


@every_kernel
def test_no_races(builder: Builder, precision: str, width: int, limits: Limits) -> None:
    program = builder.emulated("run_all_pairs_kernels", builder.races())
    sides = pairs(130, 140, width, near=True)
    with emulated(program, Schedule("random", seed=1, processors=2)) as loss:
        found = compute(loss, sides, precision, limits=limits)
    assert_right(sides, found, precision)
