"""The kernel that reads many rows once for the gradient of few, in the emulator under sanitizers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from .cases import Layout, Schedule, as_it_is, column_major, every_other, row_padded, shifted
from .emulated_all_pairs import Limits, emulated
from .programs import Builder
from .test_fused_kernels import MARGIN, STREAMED, Case, assert_right, case, every_dtype


def limits(blocks: int) -> Limits:
    """`blocks`: how many blocks of threads run at once, which decides how tiles of columns are divided."""
    return Limits(fused=(STREAMED, blocks))


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


def check(program: Path, c: Case, blocks: int, output_mask: int = 1, per_term: bool = False) -> None:
    with emulated(program) as loss:
        found = loss.compute(
            *c.tensors, labels=c.labels, margin=c.margin, mean=False, output_mask=output_mask, per_term=per_term,
            limits=limits(blocks),
        )  # fmt: skip
    sides = [k for k in range(2) if output_mask >> k & 1]
    assert_right(c, found, per_term, sides)
    assert all(len(found.gradients[k]) == 0 for k in range(2) if k not in sides)


@every_dtype
@pytest.mark.parametrize(
    ("rows", "columns", "width", "blocks", "side"),
    [(1, 1, 512, 1, 0), (32, 330, 512, 2, 0), (33, 210, 503, 3, 1), (64, 64, 8, 4, 0), (70, 150, 264, 5, 0)],
)
def test_results_equal_the_definition(
    program: Path, rows: int, columns: int, width: int, blocks: int, side: int, dtype: torch.dtype
) -> None:
    """Ragged sizes, several blocks of rows, columns in one part and in several, and rows on either side."""
    sizes = (rows, columns) if side == 0 else (columns, rows)
    check(program, case(*sizes, width, dtype, weighted=rows % 2 == 0), blocks, output_mask=1 << side)


@pytest.mark.parametrize("output_mask", [0, 1, 2])
def test_terms_apart_and_requested_gradients(program: Path, output_mask: int) -> None:
    for per_term in (False, True):
        check(program, case(20, 140, 72, torch.bfloat16), 2, output_mask, per_term)


def test_near_equal_and_distant_points(program: Path) -> None:
    """Pairs at every share of their norms, equal rows, and rows far from the origin."""
    for dtype, offset in itertools.product((torch.bfloat16, torch.float16), (0.0, 4.0)):
        c = case(70, 90, 96, dtype, offset=offset)
        steps = torch.logspace(-4, 0, 60)[:, None]
        random = torch.Generator().manual_seed(1)
        z2 = c.z2.clone()
        z2[:60] = (c.z1[:60].float() + steps * torch.randn(60, 96, generator=random) / math.sqrt(96)).to(dtype)
        z2[60:70] = c.z1[60:70]
        check(program, replace(c, z2=z2), 3)


def test_classes(program: Path) -> None:
    """One class, classes without rows on a side, more classes than rows, and tiles beyond the margin."""
    made = case(40, 140, 100, torch.bfloat16)
    one = replace(made, y1=made.y1 * 0, y2=made.y2 * 0)
    apart = replace(made, y1=made.y1 * 2, y2=made.y2 + 1, weight=torch.rand(7, 7), labels=7)
    many = replace(made, y1=torch.arange(40) * 3, y2=torch.arange(140) * 2, weight=torch.rand(300, 300), labels=300)
    beyond = replace(made, margin=0.3)
    for c in (one, apart, many, beyond):
        check(program, c, 2)


@pytest.mark.parametrize("scale", [1, -1, 10**12])
def test_labels_may_be_any_numbers_without_weights(program: Path, scale: int) -> None:
    """Also numbers that differ only above 32 bits."""
    made = case(66, 80, 64, torch.float16, classes=20, weighted=False)
    y1, y2 = (y % 7 * scale + (y // 7 << 32) for y in (made.y1, made.y2))
    check(program, replace(made, y1=y1, y2=y2, labels=0), 2)


@pytest.mark.parametrize("layout", [as_it_is, row_padded, shifted, column_major, every_other])
@pytest.mark.parametrize("side", [0, 1])
def test_layouts(program: Path, layout: Layout, side: int) -> None:
    """Of one side; the other is read in place."""
    c = case(34, 70, 128, torch.bfloat16)
    names = ("z1", "y1") if side == 0 else ("z2", "y2")
    z, y = (getattr(c, name) for name in names)
    check(program, replace(c, **{names[0]: layout(z), names[1]: layout(y[:, None])[:, 0]}), 2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("side", [0, 1])
def test_nan_and_infinity_reach_the_loss(program: Path, bad: float, side: int) -> None:
    """As in the definition: NaN makes all pairs of its row NaN, and infinity those of its class infinite or NaN."""
    c = case(50, 90, 56, torch.bfloat16, weighted=False)
    (c.z1, c.z2)[side][40, 3] = bad
    with emulated(program) as loss:
        found = loss.compute(*c.tensors, labels=4, margin=MARGIN, mean=False, output_mask=1, limits=limits(2))
    assert not found.loss.isfinite()
    if math.isnan(bad):
        assert found.terms.isnan().all()


@every_dtype
@pytest.mark.parametrize("what", ["target1", "target2", "pair_weight"])
def test_bad_labels_and_weights_are_reported(program: Path, what: str, dtype: torch.dtype) -> None:
    c = case(70, 190, 56, dtype)
    y1, y2, weight = c.y1.clone(), c.y2.clone(), c.weight.clone()
    expected = {"target1": (69, 4), "target2": (130, -1), "pair_weight": (0, 2 * 4 + 1)}[what]
    if what == "target1":
        y1[69] = 4
    elif what == "target2":
        y2[130] = -1
    else:
        weight[2, 1] = math.nan
    with emulated(program) as loss:
        found = loss.compute(c.z1, c.z2, y1, y2, weight, margin=MARGIN, output_mask=1, limits=limits(2))
    assert found.reported == (what, *expected)
    assert found.loss.isnan()
    assert found.terms.isnan().all()
    assert found.gradients[0].isnan().all()


def test_the_same_bits_in_every_order(program: Path) -> None:
    c = case(40, 330, 512, torch.bfloat16)
    results = []
    for schedule in (Schedule(), Schedule("reverse", processors=2), Schedule("random", seed=3, processors=3)):
        with emulated(program, schedule) as loss:
            found = loss.compute(*c.tensors, margin=MARGIN, output_mask=1, limits=limits(3))
        results.append([found.loss, found.terms, found.gradients[0]])
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_no_races(builder: Builder) -> None:
    program = builder.emulated("run_all_pairs_kernels", builder.races())
    c = case(66, 330, 256, torch.bfloat16)
    with emulated(program, Schedule("random", seed=1, processors=2)) as loss:
        found = loss.compute(*c.tensors, margin=MARGIN, mean=False, output_mask=1, limits=limits(4))
    assert_right(c, found, per_term=False, sides=(0,))
