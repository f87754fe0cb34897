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
# and stores have 16 bytes if the gradients are aligned too.
VARIANTS: dict[str, tuple[int, Layout]] = {
    "warp, packed, packed gradients": (64, as_it_is),
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


@pytest.mark.parametrize("width", [40, 1024], ids=["warp", "block"])
@pytest.mark.parametrize(("argument", "value", "reported"), BROKEN)
def test_a_bad_value_is_reported(kernels: Kernels, width: int, argument: str, value: float, reported: int) -> None:
    good = broken(make_call(40, 7, width), argument, 0)  # the same call with an allowed value
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
    calls = [call, per_pair(call)]
    for call, result in zip(calls, Kernels(cuda_kernels_for_races).run(calls), strict=True):
        assert result.kernel == variant
        assert_as_good_as_torch(call, result)
