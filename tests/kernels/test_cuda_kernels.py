"""The CUDA kernels of the zipped loss: variants, orders of blocks and threads, bad values and races."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from .cases import DTYPES, Call, Kernels, Layout, Result, Schedule, as_it_is, make_call, row_aligned, shifted
from .oracle import assert_as_good_as_torch

SCHEDULES = [
    Schedule("forward"),
    Schedule("reverse"),
    Schedule("random", seed=1),
    Schedule("random", seed=2),
    Schedule("forward", processors=2),
    Schedule("random", seed=3, processors=3),
]


@pytest.fixture(scope="module")
def kernels(cuda_kernels: Path) -> Kernels:
    return Kernels(cuda_kernels)


def per_pair(call: Call) -> Call:
    """Return the call without a reduction: the loss and its upstream gradient have one value per pair."""
    grad_loss, grad_terms = call.grad_loss.expand(call.pairs), call.grad_terms[:, None].expand(4, call.pairs)
    return replace(call, reduction="none", grad_loss=grad_loss, grad_terms=grad_terms)


def assert_same_bits(first: Result, second: Result) -> None:
    for name, values in {**first.tensors(), "saved": first.saved}.items():
        other = {**second.tensors(), "saved": second.saved}[name]
        assert torch.equal(values.flatten().view(torch.uint8), other.flatten().view(torch.uint8)), name


# One warp computes a pair, or a whole block if rows have 2 KB or more. Loads have 16 bytes if the features are aligned,
# and stores have 16 bytes if the gradients are aligned too. Then a warp keeps a pair of rows in registers.
VARIANTS: dict[str, tuple[int, Layout]] = {
    "warp, packed, packed gradients, 1 in registers": (64, as_it_is),
    "warp, packed": (67, row_aligned),
    "warp": (64, shifted),
    "block, packed, packed gradients": (1024, as_it_is),
    "block, packed": (1027, row_aligned),
    "block": (1024, shifted),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_in_every_order(kernels: Kernels, variant: str, dtype: torch.dtype) -> None:
    """The last block finishes the sums, and all bits are the same whichever block is last."""
    width, layout = VARIANTS[variant]
    call = make_call(29, 5, width, dtype, layouts=(layout, layout))
    results = kernels.run([replace(call, schedule=schedule) for schedule in SCHEDULES])
    assert results[0].kernel == variant
    assert_as_good_as_torch(call, results[0])
    for result in results[1:]:
        assert_same_bits(results[0], result)


def test_more_pairs_than_the_grid_has_warps(kernels: Kernels) -> None:
    call = make_call(1024 * 8 + 45, 2, 3, streams=0, weighted=False)
    forward, reverse = kernels.run([replace(call, schedule=Schedule(order)) for order in ("forward", "reverse")])
    assert_as_good_as_torch(call, forward)
    assert_same_bits(forward, reverse)


def test_consecutive_launches_are_independent(kernels: Kernels) -> None:
    """What a launch leaves in counters or shared memory does not change the results of the next launch."""
    calls = [make_call(pairs, 600, 40, seed=pairs) for pairs in (20, 1, 33, 20)]
    together = kernels.run(calls)
    for call, result in zip(calls, together, strict=True):
        assert_same_bits(result, kernels.run([call])[0])


# ---- runs: a warp takes several pairs ----


def width_of(packs: int, dtype: torch.dtype) -> int:
    """Return the width of rows of which a lane holds `packs` packs of 16 bytes, and the last lanes one less."""
    return (512 * packs - 16 * 5) // dtype.itemsize


@pytest.mark.parametrize("left", [False, True], ids=["", "gradients left"])
@pytest.mark.parametrize("packs", [1, 2, 4])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rows_in_registers(kernels: Kernels, dtype: torch.dtype, packs: int, left: bool) -> None:
    """Rows that do and do not fill all lanes, in runs that do and do not have a full number of pairs."""
    widths = (width_of(packs, dtype), width_of(packs, dtype) - 16 * 20 // dtype.itemsize)
    calls = [replace(make_call(11, 5, width, dtype), left=left, run_length=4) for width in widths]
    for call, result in zip(calls, kernels.run(calls), strict=True):
        assert result.kernel == f"warp, packed, packed gradients, {packs} in registers"
        assert_as_good_as_torch(call, result)


@pytest.mark.parametrize("classes", [1, 16, 17, 40])
@pytest.mark.parametrize("run_length", [2, 4, 32])
def test_runs_of_any_length(kernels: Kernels, run_length: int, classes: int) -> None:
    """One lane or a whole warp goes through the logits; there are more runs than warps, and the last one is short."""
    reductions = ("none", "mean", "sum", "weighted_mean")
    shapes: tuple[tuple[int, Layout], ...] = ((20, as_it_is), (8, shifted), (13, row_aligned), (20, shifted))
    calls = [
        replace(
            make_call(75, classes, width, reduction=reduction, layouts=(layout, layout), weighted=width > 8),
            run_length=run_length,
        )
        for reduction, (width, layout) in zip(reductions, shapes, strict=True)
    ]
    for call, result in zip(calls, kernels.run(calls), strict=True):
        assert_as_good_as_torch(call, result)
    for parts in ({"streams": 1, "width": 17}, {"streams": 2, "width": 0}, {"streams": 0, "width": 16}):
        call = replace(make_call(75, classes, **parts), run_length=run_length)
        assert_as_good_as_torch(call, kernels.run([call])[0])


def test_runs_in_every_order(kernels: Kernels) -> None:
    call = replace(make_call(300, 5, 64), run_length=32, left=True)
    results = kernels.run([replace(call, schedule=schedule) for schedule in SCHEDULES])
    for result in results[1:]:
        assert_same_bits(results[0], result)


# ---- gradients that the forward pass leaves ----

LEFT: dict[str, tuple[int, int, Layout]] = {
    "in registers": (40, 64, as_it_is),
    "loads of 16 bytes": (40, 67, row_aligned),
    "single loads": (40, 64, shifted),
    "wide rows": (513, 1028, as_it_is),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("variant", LEFT)
def test_gradients_that_the_forward_pass_leaves(kernels: Kernels, variant: str, dtype: torch.dtype) -> None:
    """They have the bits of a backward pass, also where that has to replace them: the upstream gradient is not 1."""
    pairs, width, layout = LEFT[variant]
    call = make_call(pairs, 5, width, dtype, layouts=(layout, layout), reduction="weighted_mean")
    one = torch.ones((), dtype=call.acc)
    calls = [replace(call, grad_loss=one, grad_terms=None), replace(call, grad_loss=one / 4, grad_terms=None), call]
    calls = [replace(call, run_length=8) for call in calls]
    left = [replace(call, left=True) for call in calls]
    for ordinary, result in zip(kernels.run(calls), kernels.run(left), strict=True):
        assert_same_bits(ordinary, result)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_only_the_gradient_that_is_needed_is_left(kernels: Kernels, reduction: str) -> None:
    call = make_call(40, 5, 64, reduction=reduction)
    call = replace(call, grad_loss=torch.ones(()), grad_terms=None, left=True, run_length=8)
    for needs_grad in [(True, True, True, False), (False, True, False, True)]:
        some = replace(call, needs_grad=needs_grad)
        assert_as_good_as_torch(some, kernels.run([some])[0])


# ---- bad labels and weights are reported, and cause no access out of bounds ----

ROW = 17


def broken(call: Call, argument: str, value: int | float) -> Call:
    """Return the call with one bad label, or with a bad weight that pair ROW uses."""
    targets, class_weights = [t.clone() for t in call.targets], [w.clone() for w in call.class_weights]
    pair_weight = call.pair_weight.clone()
    k = int(argument[-1]) - 1 if argument[-1].isdigit() else 0
    if argument.startswith("target"):
        targets[k][ROW] = value
    elif argument.startswith("class_weight"):
        targets[k] = targets[k] % 3
        targets[k][ROW] = 4
        class_weights[k][4] = value
    else:
        targets = [t % 3 for t in targets]
        targets[0][ROW], targets[1][ROW] = 5, 6
        pair_weight[5, 6] = value
    return replace(call, targets=tuple(targets), class_weights=tuple(class_weights), pair_weight=pair_weight)


BROKEN = [
    ("target1", -3, -3),
    ("target1", 7, 7),
    ("target2", 1 << 22, 1 << 22),
    ("target2", 1 << 40, (1 << 23) - 1),  # clamped to the bits of the report
    ("target1", -(1 << 40), -(1 << 23)),
    ("class_weight1", -0.5, 4),
    ("class_weight2", float("nan"), 4),
    ("pair_weight", -1e-30, 5 * 7 + 6),
]


@pytest.mark.parametrize(("width", "run_length"), [(40, 1), (1024, 1), (40, 32)], ids=["warp", "block", "run"])
@pytest.mark.parametrize(("argument", "value", "reported"), BROKEN)
def test_a_bad_value_is_reported(
    kernels: Kernels, width: int, run_length: int, argument: str, value: float, reported: int
) -> None:
    call = replace(make_call(40, 7, width), run_length=run_length)
    good = broken(call, argument, 0)  # the same call with an allowed value
    bad = broken(good, argument, value)
    expected, each, mean = kernels.run([per_pair(good), per_pair(bad), bad])
    assert expected.fault == (None, 0, 0)
    assert each.fault == mean.fault == (argument, ROW, reported)
    assert mean.loss.isnan()
    others = torch.arange(40) != ROW
    assert each.loss[ROW].isnan()
    assert torch.equal(each.loss[others], expected.loss[others])
    for gradient, healthy in zip(each.gradients, expected.gradients, strict=True):
        assert gradient[ROW].isnan().all()
        assert torch.equal(gradient[others], healthy[others])


def test_a_gradient_that_is_left_for_a_bad_pair_is_nan(kernels: Kernels) -> None:
    call = broken(make_call(40, 7, 40), "target1", 9)
    call = replace(call, grad_loss=torch.ones(()), grad_terms=None, left=True, run_length=32)
    (result,) = kernels.run([call])
    for gradient in result.gradients:
        assert gradient.isnan().any(1).tolist() == [row == ROW for row in range(40)]


def test_one_of_several_bad_values_is_reported(kernels: Kernels) -> None:
    call = make_call(40, 7, 20)
    call.targets[0][3], call.targets[1][3], call.targets[1][20] = -1, 9, 8
    for result in kernels.run([replace(call, schedule=schedule) for schedule in SCHEDULES]):
        assert result.fault in [("target1", 3, -1), ("target2", 20, 8)]


# ---- races ----


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_races(cuda_kernels_for_races: Path, variant: str) -> None:
    """ThreadSanitizer observes the threads of all blocks, which only barriers and fences order."""
    width, layout = VARIANTS[variant]
    pairs = 5 if variant.startswith("block") else 20
    call = replace(make_call(pairs, 5, width, layouts=(layout, layout)), schedule=Schedule(processors=2))
    calls = [call, per_pair(call), replace(call, run_length=4)]
    for call, result in zip(calls, Kernels(cuda_kernels_for_races).run(calls), strict=True):
        assert result.kernel == variant
        assert_as_good_as_torch(call, result)
