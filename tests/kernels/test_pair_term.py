"""The mathematics of one pair in csrc/core/pair_term.h, for numbers and for vectors, against the definition."""

from __future__ import annotations

import subprocess
from itertools import product

import pytest
import torch
from torch import Tensor

from fastccsa import reference

from .programs import Builder

MARGIN = 12.0
DISTANCES = (0.0, 1e-15, 0.25, 3.0, 11.999, MARGIN, 12.001, 400.0, float("inf"), float("nan"))
WEIGHTS = (0.0, 0.3, 1.0, 7.5)

PRECISION = {torch.float32: 1e-6, torch.float64: 1e-14}


@pytest.fixture(scope="module")
def pairs() -> Tensor:
    """Distance, whether the classes are equal, and weight of each pair: [pairs, 3]."""
    return torch.tensor(list(product(DISTANCES, (0.0, 1.0), WEIGHTS)), dtype=torch.float64)


@pytest.fixture(scope="module")
def results(builder: Builder, pairs: Tensor) -> dict[tuple[torch.dtype, str], Tensor]:
    """Alignment, separation and coefficient of each pair: [pairs, 3]."""
    program = builder.standalone("evaluate_pair_terms", builder.memory_or_plain())
    distance, same, weight = pairs.unbind(1)
    request = torch.stack([distance.square(), same, weight, torch.full_like(weight, MARGIN)], 1)
    output = subprocess.run([program], input=request.numpy().tobytes(), capture_output=True, check=True).stdout
    found, begin = {}, 0
    for dtype, form in product((torch.float32, torch.float64), ("number", "vector")):
        end = begin + 3 * len(pairs) * dtype.itemsize
        found[dtype, form] = torch.frombuffer(bytearray(output[begin:end]), dtype=dtype).view(-1, 3)
        begin = end
    return found


def expected(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return both terms, and their gradient with respect to z1 for one feature with z1 - z2 = distance."""
    distance, same, weight = pairs.unbind(1)
    z1 = distance[:, None].requires_grad_()
    y1, y2 = torch.arange(len(pairs)), torch.arange(len(pairs)) + (1 - same.long())
    alignment, separation = reference.pair_terms(z1, torch.zeros_like(z1), y1, y2, None, MARGIN)
    alignment, separation = weight * alignment, weight * separation
    (gradient,) = torch.autograd.grad((alignment + separation).sum(), z1)
    return torch.stack([alignment, separation], 1).detach(), gradient[:, 0]


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
@pytest.mark.parametrize("form", ["number", "vector"])
def test_terms_and_gradient(
    results: dict[tuple[torch.dtype, str], Tensor], pairs: Tensor, dtype: torch.dtype, form: str
) -> None:
    finite = pairs[:, 0].isfinite()
    terms, gradient = expected(pairs[finite])
    found = results[dtype, form][finite].double()
    tolerances = {"rtol": PRECISION[dtype], "atol": 200 * PRECISION[dtype]}  # m - d cancels near the margin
    torch.testing.assert_close(found[:, :2], terms, **tolerances)
    torch.testing.assert_close(found[:, 2] * pairs[finite][:, 0], gradient, **tolerances)


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
@pytest.mark.parametrize("form", ["number", "vector"])
def test_separation_has_no_gradient_at_distance_zero_or_beyond_the_margin(
    results: dict[tuple[torch.dtype, str], Tensor], pairs: Tensor, dtype: torch.dtype, form: str
) -> None:
    distance, same = pairs[:, 0], pairs[:, 1] == 1
    still = ~same & ((distance == 0) | (distance >= MARGIN))
    assert still.sum() == 5 * len(WEIGHTS)
    assert results[dtype, form][still, 2].tolist() == [0] * int(still.sum())
    beyond = ~same & (distance >= MARGIN)
    assert results[dtype, form][beyond, 1].tolist() == [0] * int(beyond.sum())


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
def test_nan_propagates_to_the_term_of_the_pair(
    results: dict[tuple[torch.dtype, str], Tensor], pairs: Tensor, dtype: torch.dtype
) -> None:
    """It does so even with weight 0."""
    nan, same = pairs[:, 0].isnan(), pairs[:, 1] == 1
    found = results[dtype, "number"].isnan()
    assert found[nan & same].tolist() == [[True, False, False]] * len(WEIGHTS)
    assert found[nan & ~same].tolist() == [[False, True, True]] * len(WEIGHTS)


@pytest.mark.parametrize("dtype", PRECISION, ids=str)
def test_vectors_and_numbers_give_the_same_bits(
    results: dict[tuple[torch.dtype, str], Tensor], dtype: torch.dtype
) -> None:
    one_by_one, in_vectors = results[dtype, "number"], results[dtype, "vector"]
    assert torch.equal(one_by_one.isnan(), in_vectors.isnan())
    numbers = ~one_by_one.isnan()
    bits = torch.int32 if dtype == torch.float32 else torch.int64
    assert torch.equal(one_by_one[numbers].view(bits), in_vectors[numbers].view(bits))
