"""The loss over all pairs on CUDA by products of tiles, in the emulator under sanitizers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastccsa import functional, reference

from .cases import DTYPES, Layout, Schedule, as_it_is, column_major, every_other
from .emulated_all_pairs import NO_FAULT, PRODUCTS, Limits, Outcome, emulated, some
from .programs import Builder

MARGIN = 6.0


def results(z: list[Tensor], y: list[Tensor], weight: Tensor | None, layout: Layout, module=functional) -> list[Tensor]:
    """Return the loss and both gradients."""
    leaves = [x.clone().requires_grad_() for x in z]
    loss = module.contrastive_alignment(*map(layout, leaves), *y, weight, MARGIN, "all")
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def definition(z: list[Tensor], y: list[Tensor], weight: Tensor | None) -> list[Tensor]:
    weight = None if weight is None else weight.double()
    return results([x.double() for x in z], y, weight, as_it_is, reference)


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for mine, true in zip(found, expected, strict=True):
        rounding = max(tolerance, torch.finfo(mine.dtype).eps)
        torch.testing.assert_close(mine.double(), true, rtol=rounding, atol=rounding * true.abs().max().item())


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


# ---- values ----


@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_equal_the_definition(program: Path, dtype: torch.dtype, near: bool) -> None:
    """Ragged sizes, several tiles, several layouts, with and without weights."""
    cases = [(1, 1, 1, as_it_is), (9, 33, 65, column_major), (70, 81, 7, every_other)]
    with emulated(program) as loss, loss.replaces_op(PRODUCTS):
        for rows1, rows2, width, layout in cases:
            z, y = some(rows1, rows2, width, dtype, near)
            weight = None if rows1 == 9 else torch.rand(3, 3, dtype=torch.float64).t()
            found = results(z, y, weight, layout)
            assert_close(found, definition(z, y, weight), 1e-10 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("rows", [(3, 480), (1, 1300), (700, 3)], ids=str)
def test_few_rows_against_many(program: Path, rows: tuple[int, int]) -> None:
    """Several warps per row, and more than 32 words of bits with near pairs in all of them."""
    z, y = some(*rows, 11, torch.float64, near=False)
    few, many = (0, 1) if rows[0] < rows[1] else (1, 0)
    nearest = z[few][torch.arange(rows[many]) % rows[few]]
    z[many] = nearest + 10.0 ** -(torch.arange(rows[many]) % 5)[:, None] * (z[many] - 2)
    weight = torch.rand(3, 3, dtype=torch.float64)
    with emulated(program) as loss, loss.replaces_op(PRODUCTS):
        assert_close(results(z, y, weight, as_it_is), definition(z, y, weight), 1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_tile_of_several_blocks_of_threads(program: Path, dtype: torch.dtype) -> None:
    """They are ragged, some have one class, and some have near or close pairs."""
    z, y = some(150, 530, 12, dtype, near=True)
    y = [labels.sort().values for labels in y]
    weight = torch.rand(3, 3, dtype=torch.float64)
    with emulated(program) as loss, loss.replaces_op(Limits(tile=(150, 530))):
        found = results(z, y, weight, as_it_is)
    assert_close(found, definition(z, y, weight), 1e-10 if dtype == torch.float64 else 4e-6)


def test_labels_may_be_any_numbers_without_weights(program: Path) -> None:
    z, (y1, y2) = some(30, 45, 9, torch.float64, near=True)
    y = [10**12 * (labels - 1) for labels in (y1, y2)]
    with emulated(program) as loss, loss.replaces_op(PRODUCTS):
        assert_close(results(z, y, None, as_it_is), definition(z, y, None), 1e-10)


def test_more_classes_than_occur(program: Path) -> None:
    """Without a host sync, every possible class gets a mean. Here there are more classes than threads of a block."""
    z, (y1, y2) = some(30, 45, 9, torch.float64, near=True)
    y = [y1 * 100 + 3, y2 * 100 + 3]
    weight = torch.rand(300, 300, dtype=torch.float64)
    with emulated(program) as loss, loss.replaces_op(PRODUCTS):
        assert_close(results(z, y, weight, as_it_is), definition(z, y, weight), 1e-10)


def test_a_class_that_occurs_on_only_one_side(program: Path) -> None:
    z, (y1, y2) = some(30, 45, 9, torch.float64, near=False)
    y = [y1 * 2, y2 + 1]
    for weight in (None, torch.rand(5, 5, dtype=torch.float64)):
        with emulated(program) as loss, loss.replaces_op(PRODUCTS):
            assert_close(results(z, y, weight, as_it_is), definition(z, y, weight), 1e-10)


def test_rows_are_centred_before_products(program: Path) -> None:
    """Results do not show this: without centring, more pairs would be computed from their rows."""
    z, (y1, y2) = some(30, 45, 9, torch.float64, near=False)
    with emulated(program) as loss:
        for weight in (None, torch.rand(300, 300, dtype=torch.float64)):
            found = loss.compute(*z, y1 * 90, y2 * 90 + 90, weight, margin=MARGIN)
            torch.testing.assert_close(found.centre, torch.cat(z).mean(0))


def test_each_term_has_its_own_gradient(program: Path) -> None:
    z, y = some(50, 31, 20, torch.float64, near=True)
    weight = torch.rand(3, 3, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in z]
    with emulated(program) as loss, loss.replaces_op(PRODUCTS):
        terms = functional.contrastive_alignment_terms(*leaves, *y, weight, MARGIN, "all", "sum")
    exact = [t.sum() for t in reference.pair_terms(*leaves, *y, weight, MARGIN, "all")]
    for mine, true in zip(terms, exact, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-10, atol=0)
        gradients = torch.autograd.grad(mine, leaves, retain_graph=True)
        assert_close(list(gradients), list(torch.autograd.grad(true, leaves, retain_graph=True)), 1e-9)


@pytest.mark.parametrize("per_term", [False, True])
@pytest.mark.parametrize("output_mask", [0, 1, 2])
def test_only_requested_gradients_are_computed(program: Path, output_mask: int, per_term: bool) -> None:
    """They have the same bits as when all are requested. The others take no memory."""
    z, y = some(45, 80, 9, torch.float32, near=True)
    with emulated(program) as loss:
        whole = loss.compute(*z, *y, None, margin=MARGIN, per_term=per_term)
        found = loss.compute(*z, *y, None, margin=MARGIN, per_term=per_term, output_mask=output_mask)
    assert torch.equal(found.loss, whole.loss)
    assert torch.equal(found.terms, whole.terms)
    for side in range(2):
        if output_mask >> side & 1:
            assert torch.equal(found.gradients[side], whole.gradients[side])
        else:
            assert len(found.gradients[side]) == 0


def test_features_without_columns(program: Path) -> None:
    """All distances are 0, so the gradient of pairs of different classes has no direction."""
    z, y = some(50, 90, 0, torch.float32, near=False)
    with emulated(program) as loss:
        found = loss.compute(*z, *y, None, margin=MARGIN)
    different = (y[0][:, None] != y[1]).double().mean().item()
    assert found.terms.tolist() == pytest.approx([0, MARGIN**2 * different])
    assert found.gradients[0].shape == (1, 50, 0)


# ---- precisions of products ----


def errors_of(found: Outcome, z: list[Tensor], y: list[Tensor], margin: float) -> float:
    """Return the largest error of a gradient, relative to its largest value."""
    leaves = [x.double().requires_grad_() for x in z]
    true = torch.autograd.grad(reference.contrastive_alignment(*leaves, *y, None, margin, "all"), leaves)
    return max(((g[0] - t).abs().max() / t.abs().max()).item() for g, t in zip(found.gradients, true, strict=True))


@pytest.mark.parametrize(
    ("precision", "least", "most"),
    [("ieee", 0, 2e-6), ("bf16x3", 1e-6, 4e-5), ("tf32", 2e-5, 1e-2)],
)
def test_precisions(program: Path, precision: str, least: float, most: float) -> None:
    """Products of enough parts are as accurate as float32. Fewer drop bits, as on tensor cores."""
    z, y = some(70, 90, 40, torch.float32, near=False)
    with emulated(program) as loss:
        found = loss.compute(*z, *y, None, margin=12.0, precision=precision)
    assert least <= errors_of(found, z, y, 12.0) <= most


@pytest.mark.parametrize(("rows", "width"), [((1100, 24), 16), ((24, 1100), 16), ((2, 1100), 400)], ids=str)
def test_divided_products(program: Path, rows: tuple[int, int], width: int) -> None:
    """Precision "ieee" divides products of more than 512 terms into pieces, of which the last is shorter.

    They fit into the memory of a tile, except in the last case, which computes one after the other.
    """
    z, y = some(*rows, width, torch.float32, near=False)
    with emulated(program) as loss, loss.replaces_op(Limits(tile=(1100, 24))):
        assert_close(results(z, y, None, as_it_is), definition(z, y, None), 4e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_features_are_multiplied_as_they_are(program: Path, dtype: torch.dtype) -> None:
    """Only the coefficients are rounded, to 8 bits or 16, whatever the precision. Rows are not centred."""
    z, y = some(70, 90, 40, dtype, near=False)
    with emulated(program) as loss:
        found, other = (loss.compute(*z, *y, None, margin=12.0, precision=p) for p in ("ieee", "tf32"))
    assert all(map(torch.equal, found.gradients, other.gradients))
    assert len(found.centre) == 0
    differences = z[0].double()[:, None] - z[1].double()
    distance = differences.norm(dim=-1)
    different = y[0][:, None] != y[1]
    coefficient = torch.where(different & (distance < 12), 2 * (12 - distance) / distance, 0) / distance.numel()
    leaves = [x.double().requires_grad_() for x in z]
    true = torch.autograd.grad(reference.contrastive_alignment(*leaves, *y, None, 12.0, "all"), leaves)
    if dtype == torch.bfloat16:  # products and sums are exact but for roundings of float32
        unit, size = 2.0**-9, differences.abs()
    else:  # and products of the second parts are left out
        unit, size = 2.0**-16, z[0].double().abs()[:, None] + z[1].double().abs()
    for side, truth in enumerate(true):
        bound = unit * (coefficient[:, :, None] * size).sum(1 - side) + 4e-6 * truth.abs().max()
        assert ((found.gradients[side][0] - truth).abs() <= bound).all()


@pytest.mark.parametrize("precision", ["ieee", "bf16x3", "tf32"])
def test_float64_has_one_precision(program: Path, precision: str) -> None:
    z, y = some(45, 80, 9, torch.float64, near=False)
    with emulated(program) as loss:
        found = loss.compute(*z, *y, None, margin=MARGIN, precision=precision)
    assert_close([found.loss, *(g[0] for g in found.gradients)], definition(z, y, None), 1e-12)


# ---- which tiles ----


@pytest.mark.parametrize("tile", [(8, 16), (3, 5), (1, 3), (64, 7)], ids=str)
@pytest.mark.parametrize("classes", [1, 3, 20])
def test_results_do_not_depend_on_the_tiles(program: Path, tile: tuple[int, int], classes: int) -> None:
    """Every pair counts once, whatever the classes of a tile are."""
    z, _ = some(31, 23, 5, torch.float64, near=False)
    random = torch.Generator().manual_seed(classes)
    y = [torch.randint(classes, (len(x),), generator=random) for x in z]
    with emulated(program) as loss, loss.replaces_op(Limits(tile=tile)):
        assert_close(results(z, y, None, as_it_is), definition(z, y, None), 1e-11)


def count_covered(tiles: list[tuple[slice, slice]], rows: tuple[int, int]) -> Tensor:
    covered = torch.zeros(rows, dtype=torch.int64)
    for own, others in tiles:
        covered[own, others] += 1
    return covered


@pytest.mark.parametrize("rows", [(90, 75), (3, 400), (1, 1), (200, 1)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tiles_by_sizes_cover_each_pair_once(program: Path, rows: tuple[int, int], dtype: torch.dtype) -> None:
    """No tile has more values than the limit. With few rows, tiles are wider."""
    z, y = some(*rows, 2, dtype, near=False)
    with emulated(program) as loss:
        tiles = loss.compute(*z, *y, None, margin=1.0, limits=Limits(tile=(16, 12))).tiles
    covered = count_covered(tiles, rows)
    assert (covered == 1).all()
    for tile in tiles:
        assert covered[tile].numel() * dtype.itemsize <= 16 * 12 * 4
    if rows == (3, 400):
        assert len(tiles) < 400 / 12


# ---- bad values ----

NAN = float("nan")
BROKEN = [
    ("target1", (44, -3), ("target1", 44, -3)),
    ("target1", (2, 3), ("target1", 2, 3)),
    ("target2", (70, 1 << 20), ("target2", 70, 1 << 20)),
    ("pair_weight", ((2, 1), NAN), ("pair_weight", 0, 2 * 3 + 1)),
    ("pair_weight", ((1, 1), -0.5), ("pair_weight", 0, 1 * 3 + 1)),
]


@pytest.mark.parametrize(("argument", "change", "fault"), BROKEN)
def test_a_bad_value_is_reported_by_a_kernel(program: Path, argument: str, change: tuple, fault: tuple) -> None:
    """Nothing is read out of bounds. Loss and gradients are NaN, so that no optimizer step uses them."""
    z, (y1, y2) = some(45, 81, 17, torch.float32, near=False)
    arguments = {"target1": y1, "target2": y2, "pair_weight": torch.rand(3, 3)}
    with emulated(program) as loss:
        good = loss.compute(*z, *arguments.values(), margin=MARGIN)
        assert good.loss.isfinite()
        assert good.reported == NO_FAULT
        arguments[argument][change[0]] = change[1]
        found = loss.compute(*z, *arguments.values(), margin=MARGIN)
    assert found.reported == fault
    assert all(x.isnan().all() for x in (found.loss, found.terms, *found.gradients))


@pytest.mark.parametrize("bounded_by", ["pair_weight", "logits"])
def test_the_number_of_classes_bounds_labels(program: Path, bounded_by: str) -> None:
    z, y = some(45, 81, 17, torch.float32, near=False)
    y[1][7] = 3
    weight = torch.rand(3, 3) if bounded_by == "pair_weight" else None
    with emulated(program) as loss:
        found = loss.compute(*z, *y, weight, labels=3, margin=MARGIN)
    assert found.reported == ("target2", 7, 3)
    assert found.loss.isnan()


# ---- the order of execution ----

SCHEDULES = [Schedule("reverse"), Schedule("random", 1), Schedule("random", 2, processors=3)]


def test_the_order_of_execution_changes_no_bit(program: Path) -> None:
    z, y = some(45, 80, 40, torch.float32, near=True)
    with emulated(program) as loss:
        expected = loss.compute(*z, *y, torch.eye(3) + 0.5, margin=MARGIN)
    for schedule in SCHEDULES:
        with emulated(program, schedule) as loss:
            found = loss.compute(*z, *y, torch.eye(3) + 0.5, margin=MARGIN)
        assert torch.equal(found.terms, expected.terms)
        assert all(map(torch.equal, found.gradients, expected.gradients))


def test_no_races(builder: Builder) -> None:
    program = builder.emulated("run_all_pairs_kernels", builder.races())
    z, y = some(20, 40, 33, torch.float32, near=True)
    with emulated(program, Schedule(processors=2)) as loss:
        for precision, weight in (("ieee", torch.rand(3, 3)), ("bf16x3", None)):
            assert loss.compute(*z, *y, weight, margin=MARGIN, precision=precision).loss.isfinite()
