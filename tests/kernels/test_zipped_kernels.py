"""The kernels of the zipped loss, for CUDA (in the emulator) and CPU, against the definition in float64.

They run under AddressSanitizer and UndefinedBehaviorSanitizer, with buffers of exactly the necessary size.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch

from .cases import (
    DTYPES,
    LAYOUTS,
    REDUCTIONS,
    Call,
    Kernels,
    Layout,
    Schedule,
    as_it_is,
    column_major,
    every_other,
    make_call,
)
from .oracle import assert_as_good_as_torch


def assert_all_as_good_as_torch(kernels: Kernels, calls: list[Call]) -> None:
    for call, result in zip(calls, kernels.run(calls), strict=True):
        assert_as_good_as_torch(call, result)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_ragged_sizes(kernels: Kernels, dtype: torch.dtype) -> None:
    shapes = list(product((1, 2, 31, 33, 307), (1, 7, 128, 129, 515, 2050)))
    shift = DTYPES.index(dtype)  # each dtype combines sizes, reductions and layouts differently
    calls = [
        make_call(
            pairs,
            (1, 7, 33, 1000)[(k + shift) % 4] if pairs < 300 else 7,
            width,
            dtype,
            reduction=REDUCTIONS[(k + k // 4 + shift) % 4],
            layouts=(as_it_is, as_it_is) if width > 2000 else (LAYOUTS[(k + k // 6 + shift) % 6], LAYOUTS[k % 6]),
            weighted=k % 3 > 0,
            seed=k,
        )
        for k, (pairs, width) in enumerate(shapes)
    ]
    assert_all_as_good_as_torch(kernels, calls)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wide_rows_of_any_strides(kernels: Kernels, dtype: torch.dtype) -> None:
    strided = (column_major, every_other)
    calls = [make_call(pairs, 3, 2050, dtype, layouts=strided, reduction="sum") for pairs in (1, 33)]
    assert_all_as_good_as_torch(kernels, calls)


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layouts(kernels: Kernels, dtype: torch.dtype, first: Layout) -> None:
    """Every combination of two layouts, for rows that are or are not a multiple of 16 bytes."""
    calls = [make_call(9, 5, width, dtype, layouts=(first, second)) for width, second in product((16, 77), LAYOUTS)]
    # Enough classes that a CUDA kernel uses a block for each pair.
    calls.append(make_call(9, 600, 77, dtype, layouts=(first, as_it_is)))
    assert_all_as_good_as_torch(kernels, calls)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_parts_of_the_loss(kernels: Kernels, reduction: str) -> None:
    """Classification of one or two streams, pairs, or both, with and without weights."""
    parts = [(1, 0), (2, 0), (0, 17), (1, 17), (2, 17)]
    calls = [
        make_call(41, 7, width, streams=streams, weighted=weighted, reduction=reduction)
        for (streams, width), weighted in product(parts, (True, False))
    ]
    assert_all_as_good_as_torch(kernels, calls)


def test_only_requested_gradients_are_written(kernels: Kernels) -> None:
    call = make_call(33, 7, 20)
    needs_grad = [tuple(bool(bits >> k & 1) for k in range(4)) for bits in range(16)]
    assert_all_as_good_as_torch(kernels, [replace(call, needs_grad=some) for some in needs_grad])


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_upstream_gradient_of_only_the_loss_or_only_the_terms(kernels: Kernels, reduction: str) -> None:
    call = make_call(33, 7, 20, reduction=reduction)
    assert_all_as_good_as_torch(kernels, [replace(call, grad_loss=None), replace(call, grad_terms=None)])


def test_one_row_for_all_pairs(kernels: Kernels) -> None:
    """Inputs and upstream gradients with a stride of 0, which `expand` creates."""
    call = make_call(40, 7, 64, reduction="none")
    logits, features = (tuple(x[:1].expand(40, -1) for x in two) for two in (call.logits, call.features))
    upstream = {"grad_loss": call.grad_loss[:1].expand(40), "grad_terms": call.grad_terms[:, :1].expand(4, 40)}
    assert_all_as_good_as_torch(kernels, [replace(call, logits=logits, features=features, **upstream)])


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("parts", [(2, 12), (2, 0), (0, 12)], ids=["all", "classification", "pairs"])
def test_no_pairs(kernels: Kernels, reduction: str, parts: tuple[int, int]) -> None:
    """As in torch, the mean over no pairs is NaN, and the sum is 0."""
    streams, width = parts
    call = make_call(0, 7, width, streams=streams, reduction=reduction)
    (result,) = kernels.run([call])
    if reduction == "none":
        assert result.loss.shape == (0,)
    elif reduction == "sum":
        assert result.loss == 0
        assert result.terms.tolist() == [0, 0, 0, 0]
    else:
        assert result.loss.isnan()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_at_distance_zero_and_at_the_margin(kernels: Kernels, dtype: torch.dtype) -> None:
    """The gradient is 0 at the margin, and at distance 0, where it has no direction. Nothing is NaN."""
    z = torch.zeros(4, 8, dtype=dtype)
    moved = z.clone()
    moved[2:, 3] = 12
    call = replace(
        make_call(4, 2, 8, dtype, reduction="none", weighted=False),
        features=(z, moved),
        targets=(torch.tensor([0, 0, 0, 0]), torch.tensor([0, 1, 0, 1])),
    )
    (result,) = kernels.run([call])
    assert_as_good_as_torch(call, result)
    assert result.terms[2:].tolist() == [[0, 0, 144, 0], [0, 144, 0, 0]]
    nonzero_rows = result.gradients[2].abs().amax(1) > 0
    assert nonzero_rows.tolist() == [False, False, True, False]


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)  # in float64 the reference itself is too coarse here
def test_extreme_values(kernels: Kernels, dtype: torch.dtype) -> None:
    """Logits and features near the largest float16 value, and a probability of 0."""
    call = make_call(3, 4, 5, dtype, weighted=False, reduction="none")
    logits = torch.tensor([[6e4, -6e4, 0, 0], [1e-7, 0, 0, 0], [-6e4, -6e4, -6e4, -6e4]]).to(dtype)
    features = torch.full((3, 5), 200.0).to(dtype)
    targets = (torch.tensor([1, 2, 3]), torch.tensor([1, 0, 3]))
    extreme = replace(call, logits=(logits, -logits), features=(features, -features), targets=targets)
    assert_all_as_good_as_torch(kernels, [extreme])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_nan_propagates(kernels: Kernels, reduction: str) -> None:
    """A NaN among the logits or features of one pair reaches that pair's terms, and no others."""
    for k, columns in [(0, 70), (2, 70), (0, 700), (2, 700)]:
        call = make_call(5, columns if k == 0 else 3, columns if k == 2 else 3, reduction=reduction, weighted=False)
        call.inputs[k][1, columns - 3] = torch.nan
        (result,) = kernels.run([call])
        if reduction == "none":
            assert result.loss.isnan().tolist() == [False, True, False, False, False]
            assert result.gradients[k].isnan().any(1).tolist() == [False, True, False, False, False]
        else:
            assert result.loss.isnan()


@pytest.mark.parametrize("pairs", [30, 1500])
def test_results_do_not_depend_on_the_number_of_processors(kernels: Kernels, pairs: int) -> None:
    call = make_call(pairs, 3, 10)
    one, *others = kernels.run([replace(call, schedule=Schedule(processors=count)) for count in (1, 2, 3)])
    for other in others:
        for name, values in one.tensors().items():
            assert torch.equal(values, other.tensors()[name]), name
        assert torch.equal(one.saved, other.saved)
