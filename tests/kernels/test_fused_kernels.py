"""The fused loss over all pairs of 16-bit features on CUDA, in the emulator under sanitizers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ..pairs_by_definition import exactly
from .cases import Layout, Schedule, as_it_is, column_major, every_other, row_aligned, row_padded, shifted
from .emulated_all_pairs import NO_FAULT, Limits, Outcome, emulated
from .programs import Builder

# The padded widths, in the order of the C++ enum but for STREAMED, which computes a single gradient.
KERNELS = {
    "mma 64": 64, "mma 128": 128, "mma 256": 256, "mma 512 small": 512, "mma 512": 512, "mma 512 large": 512,
    "wgmma 128": 128, "wgmma 256": 256, "wgmma 512": 512, "stored 512": 512, "stored mma": 640,
}  # fmt: skip
STREAMED = 10
DTYPES = (torch.bfloat16, torch.float16)
MARGIN = 1.5
every_kernel = pytest.mark.parametrize("kernel", KERNELS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
both_orders = pytest.mark.parametrize("by_class", [False, True], ids=["as given", "by class"])


def limits(kernel: str, blocks: int, by_class: bool, stored_part: int = 256) -> Limits:
    """`blocks`: how many blocks of threads run at once, which decides how rows are divided."""
    place = list(KERNELS).index(kernel)
    return Limits(fused=(place + (place >= STREAMED), blocks), sorted=by_class, stored_part=stored_part)


@dataclass(frozen=True)
class Case:
    z1: Tensor
    z2: Tensor
    y1: Tensor
    y2: Tensor
    weight: Tensor | None
    labels: int = 0
    margin: float = MARGIN

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self.z1, self.z2, self.y1, self.y2, self.weight


def case(
    rows1: int, rows2: int, width: int, dtype: torch.dtype, classes: int = 4, weighted: bool = True,
    offset: float = 0.05,
) -> Case:  # fmt: skip
    random = torch.Generator().manual_seed(rows1 + 7 * rows2 + width)
    z = [(torch.randn(n, width, generator=random) / max(width, 1) ** 0.5 + offset).to(dtype) for n in (rows1, rows2)]
    y = [torch.randint(classes, (n,), generator=random) for n in (rows1, rows2)]
    weight = torch.rand(classes, classes, generator=random) + 0.1 if weighted else None
    return Case(z[0], z[1], y[0], y[1], weight, classes)


def with_near_rows(c: Case, columns: int) -> Case:
    """Let rows of both sides be at every share of their norms, by their last columns only; the next ten are equal."""
    count = len(c.z1) - 10
    steps = torch.logspace(-4, 0, count)[:, None]
    random = torch.Generator().manual_seed(1)
    z2 = c.z2.clone()
    z2[: count + 10] = c.z1
    moved = steps * torch.randn(count, columns, generator=random) / math.sqrt(columns)
    z2[:count, -columns:] = (c.z1[:count, -columns:].float() + moved).to(z2.dtype)
    return replace(c, z2=z2)


# ---- the error that is allowed ----


def assert_right(c: Case, found: Outcome, per_term: bool, sides: Sequence[int] = (0, 1)) -> None:
    assert found.reported == NO_FAULT
    exact = exactly(*c.tensors, c.margin)
    error = (found.terms.double() - exact.terms).abs()
    assert (error <= exact.term_bounds + 1e-30).all(), f"terms are off by {error}, more than {exact.term_bounds}"
    torch.testing.assert_close(found.loss, found.terms[0] + found.terms[1])
    for side in sides:
        expected, bound = exact.gradients[side], exact.bounds[side]
        if not per_term:
            expected, bound = expected.sum(0, keepdim=True), bound.sum(0, keepdim=True)
        error = (found.gradients[side].double() - expected).abs()
        assert (error <= bound).all(), f"a gradient of side {side} is off by {(error / bound).max():.3g} of its bound"


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


# ---- values ----


@both_orders
@every_dtype
@every_kernel
def test_results_equal_the_definition(program: Path, kernel: str, dtype: torch.dtype, by_class: bool) -> None:
    """Ragged sizes, with and without weights, and rows that are cut between blocks of threads or not."""
    width = KERNELS[kernel]
    cases = [
        (case(1, 1, width, dtype), 1),
        (case(70, 150, width, dtype, weighted=False), 5),
        (case(33, 210, width - 9, dtype), 3),
        (case(210, 67, width // 2 + 8, dtype), 1),
        (case(140, 330, min(width, 128), dtype), 2),
    ]
    with emulated(program) as loss:
        for c, blocks in cases:
            found = loss.compute(
                *c.tensors, labels=c.labels, margin=c.margin, mean=False, limits=limits(kernel, blocks, by_class)
            )
            assert_right(c, found, per_term=False)


@both_orders
@pytest.mark.parametrize("kernel", ["mma 128", "mma 512 small", "wgmma 128", "stored 512", "stored mma"])
def test_near_equal_and_distant_points(program: Path, kernel: str, by_class: bool) -> None:
    """Pairs at every share of their norms, equal rows, and rows far from the origin."""
    for dtype, offset in itertools.product(DTYPES, (0.0, 4.0)):
        c = with_near_rows(case(70, 90, 96, dtype, offset=offset), 96)
        with emulated(program) as loss:
            found = loss.compute(
                *c.tensors, labels=c.labels, margin=c.margin, mean=False, limits=limits(kernel, 3, by_class)
            )
        assert_right(c, found, per_term=False)


@both_orders
@pytest.mark.parametrize("kernel", ["mma 64", "wgmma 128", "stored 512", "stored mma"])
@pytest.mark.parametrize("output_mask", [0, 1, 2, 3])
def test_terms_apart_and_requested_gradients(program: Path, kernel: str, output_mask: int, by_class: bool) -> None:
    c = case(75, 140, 50, torch.bfloat16)
    sides = [k for k in range(2) if output_mask >> k & 1]
    with emulated(program) as loss:
        for per_term in (False, True):
            found = loss.compute(
                *c.tensors, labels=4, margin=MARGIN, mean=False, output_mask=output_mask, per_term=per_term,
                limits=limits(kernel, 3, by_class),
            )  # fmt: skip
            assert_right(c, found, per_term, sides)
            assert all(len(found.gradients[k]) == 0 for k in range(2) if k not in sides)


@both_orders
@pytest.mark.parametrize("kernel", ["mma 128", "wgmma 128", "stored 512", "stored mma"])
def test_classes(program: Path, kernel: str, by_class: bool) -> None:
    """One class, classes without rows on a side, more classes than rows, and tiles beyond the margin."""
    made = case(90, 140, 100, torch.bfloat16)
    one = replace(made, y1=made.y1 * 0, y2=made.y2 * 0)
    apart = replace(made, y1=made.y1 * 2, y2=made.y2 + 1, weight=torch.rand(7, 7), labels=7)
    many = replace(made, y1=torch.arange(90) * 3, y2=torch.arange(140) * 2, weight=torch.rand(300, 300), labels=300)
    beyond = replace(made, margin=0.3)
    with emulated(program) as loss:
        for c in (one, apart, many, beyond):
            found = loss.compute(
                *c.tensors, labels=c.labels, margin=c.margin, mean=False, limits=limits(kernel, 3, by_class)
            )
            assert_right(c, found, per_term=False)


@both_orders
@pytest.mark.parametrize("scale", [1, -1, 10**12])
def test_labels_may_be_any_numbers_without_weights(program: Path, scale: int, by_class: bool) -> None:
    made = case(60, 80, 64, torch.float16, weighted=False)
    c = replace(made, y1=made.y1 * scale, y2=made.y2 * scale, labels=0)
    with emulated(program) as loss:
        found = loss.compute(*c.tensors, margin=MARGIN, mean=False, limits=limits("mma 64", 2, by_class))
    assert_right(c, found, per_term=False)


@both_orders
@pytest.mark.parametrize("kernel", ["stored 512", "stored mma"])
def test_parts_whose_coefficients_are_stored_in_turn(program: Path, kernel: str, by_class: bool) -> None:
    """Three parts of rows and two of columns, of 256 each; most tiles of sorted rows are of one class on a side."""
    c = case(530, 400, 264, torch.bfloat16, classes=3)
    with emulated(program) as loss:
        found = loss.compute(*c.tensors, margin=MARGIN, mean=False, limits=limits(kernel, 4, by_class))
    assert_right(c, found, per_term=False)


@both_orders
@pytest.mark.parametrize("layout", [as_it_is, row_padded, row_aligned, shifted, column_major, every_other])
def test_layouts(program: Path, layout: Layout, by_class: bool) -> None:
    c = case(66, 70, 128, torch.bfloat16)
    with emulated(program) as loss:
        found = loss.compute(
            layout(c.z1), layout(c.z2), c.y1, c.y2, c.weight, margin=MARGIN, mean=False,
            limits=limits("wgmma 128", 2, by_class),
        )  # fmt: skip
    assert_right(c, found, per_term=False)


def test_features_without_columns(program: Path) -> None:
    """All distances are 0, so that each pair of different classes costs the square of the margin."""
    c = case(5, 6, 0, torch.bfloat16, weighted=False)
    with emulated(program) as loss:
        found = loss.compute(*c.tensors, labels=4, margin=MARGIN, mean=False, limits=limits("mma 64", 1, False))
    pairs = (c.y1[:, None] != c.y2[None]).sum()
    torch.testing.assert_close(found.terms, torch.stack([pairs * 0.0, pairs * MARGIN**2]).float())


def test_coefficients_of_float16_neither_overflow_nor_vanish(program: Path) -> None:
    """Weights of 10^-6 and of 10^6 give the same gradients, up to these factors; 16 bits have no such range."""
    made = case(70, 90, 64, torch.float16, weighted=False)
    with emulated(program) as loss:
        for factor in (1e-6, 1.0, 1e6):
            c = replace(made, weight=torch.full((4, 4), factor))
            found = loss.compute(*c.tensors, margin=MARGIN, mean=False, limits=limits("mma 64", 2, False))
            assert_right(c, found, per_term=False)


# ---- bad input ----


@both_orders
@pytest.mark.parametrize("kernel", ["mma 64", "wgmma 128", "stored 512", "stored mma"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinity_reach_the_loss(program: Path, kernel: str, bad: float, by_class: bool) -> None:
    """As in the definition: NaN makes all pairs of its row NaN, and infinity those of its class infinite or NaN."""
    c = case(70, 90, 50, torch.bfloat16, weighted=False)
    c.z1[40, 3] = bad
    with emulated(program) as loss:
        found = loss.compute(*c.tensors, labels=4, margin=MARGIN, mean=False, limits=limits(kernel, 2, by_class))
    assert not found.loss.isfinite()
    if math.isnan(bad):
        assert found.terms.isnan().all()


@both_orders
@pytest.mark.parametrize("what", ["target1", "target2", "pair_weight"])
def test_bad_labels_and_weights_are_reported(program: Path, what: str, by_class: bool) -> None:
    c = case(70, 90, 50, torch.bfloat16)
    y1, y2, weight = c.y1.clone(), c.y2.clone(), c.weight.clone()
    expected = {"target1": (69, 4), "target2": (0, -1), "pair_weight": (0, 2 * 4 + 1)}[what]
    if what == "target1":
        y1[69] = 4
    elif what == "target2":
        y2[0] = -1
    else:
        weight[2, 1] = -0.5
    with emulated(program) as loss:
        found = loss.compute(c.z1, c.z2, y1, y2, weight, margin=MARGIN, limits=limits("mma 64", 2, by_class))
    assert found.reported == (what, *expected)
    assert found.loss.isnan()
    assert found.terms.isnan().all()
    assert all(g.isnan().all() for g in found.gradients)


# ---- order of execution ----


@both_orders
@pytest.mark.parametrize("kernel", ["mma 128", "mma 512", "wgmma 128", "stored 512", "stored mma"])
def test_the_same_bits_in_every_order(program: Path, kernel: str, by_class: bool) -> None:
    c = case(150, 210, KERNELS[kernel], torch.bfloat16)
    results = []
    for schedule in (Schedule(), Schedule("reverse", processors=2), Schedule("random", seed=3, processors=3)):
        with emulated(program, schedule) as loss:
            found = loss.compute(*c.tensors, margin=MARGIN, limits=limits(kernel, 3, by_class))
        results.append([found.loss, found.terms, *found.gradients])
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


@pytest.mark.parametrize("kernel", ["mma 64", "mma 512 small", "wgmma 128", "stored 512", "stored mma"])
def test_no_races(builder: Builder, kernel: str) -> None:
    program = builder.emulated("run_all_pairs_kernels", builder.races())
    c = case(140, 200, min(KERNELS[kernel], 256), torch.bfloat16)
    for by_class in (False, True):
        with emulated(program, Schedule("random", seed=1, processors=2)) as loss:
            found = loss.compute(*c.tensors, margin=MARGIN, mean=False, limits=limits(kernel, 3, by_class))
        assert_right(c, found, per_term=False)


@both_orders
@pytest.mark.parametrize("rows", [(140, 650), (70, 850)], ids=str)
def test_runs_of_several_tiles(program: Path, rows: tuple[int, int], by_class: bool) -> None:
    """Each team of a block has two or more of them; the second tile of rows has few, or none."""
    c = case(*rows, 300, torch.bfloat16)
    chosen = limits("stored 512", 1, by_class, stored_part=1024)
    with emulated(program) as loss:
        found = loss.compute(*c.tensors, margin=MARGIN, mean=False, limits=chosen)
    assert_right(c, found, per_term=False)


@pytest.mark.parametrize("kernel", ["stored 512", "stored mma"])
def test_tiles_that_only_the_neighbour_needs_come_first(program: Path, kernel: str) -> None:
    """In a run of four tiles, one of two neighbouring tiles of rows leaves out the first two, which have its class."""
    made = case(342, 456, 264, torch.bfloat16, classes=2)
    c = replace(made, y1=(torch.arange(342) >= 192).long(), y2=(torch.arange(456) >= 256).long())
    with emulated(program) as loss:
        found = loss.compute(
            *c.tensors, labels=2, margin=MARGIN, mean=False, limits=limits(kernel, 1, True, stored_part=512)
        )
    assert_right(c, found, per_term=False)
