"""Products of float32 by tensor cores: the arithmetic of the parts, and what each precision gives where."""

from __future__ import annotations

import pytest
import torch

from fastccsa import functional
from fastccsa.ops import products as _products
from fastccsa.ops.products import Factor, add_product, round_to_tf32, split

U = 2.0**-24  # the unit roundoff of float32


def some(*shape: int, seed: int = 0) -> torch.Tensor:
    """Values of many magnitudes and both signs."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random) * 2.0 ** torch.randint(-20, 20, shape, generator=random)


def test_a_part_has_the_bits_of_tf32() -> None:
    x = some(10000)
    rounded = round_to_tf32(x)
    assert ((rounded.view(torch.int32) & 0x1FFF) == 0).all()
    assert ((rounded - x).abs() <= 2.0**-11 * x.abs()).all()
    assert torch.equal(round_to_tf32(rounded), rounded)
    assert torch.equal(round_to_tf32(-x), -rounded)
    assert round_to_tf32(torch.tensor([0.0, float("nan")])).isnan().tolist() == [False, True]


def test_two_parts_hold_all_but_the_last_bits() -> None:
    x = some(10000)
    large, small = split(x).parts
    assert torch.equal(round_to_tf32(small), small)
    assert ((large.double() + small.double() - x.double()).abs() <= 2 * U * x.abs()).all()


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (-1.0, 1.0)])
def test_three_products_are_as_good_as_float32(alpha: float, beta: float) -> None:
    """With factors that TF32 holds, tensor cores lose nothing before they add: float64 has exact products of parts."""
    a, b = some(40, 70), some(70, 50, seed=1)
    out = some(40, 50, seed=2)
    exact = beta * out.double() + alpha * (a.double() @ b.double())
    sizes = beta * out.double().abs() + a.double().abs() @ b.double().abs()
    in_parts = [Factor(tuple(part.double() for part in split(x).parts)) for x in (a, b)]
    result = out.double()
    add_product(result, *in_parts, alpha=alpha, beta=beta)
    assert ((result - exact).abs() <= 8 * U * sizes).all()
    one_product = out.double()
    add_product(one_product, *(Factor(f.parts[:1]) for f in in_parts), alpha=alpha, beta=beta)
    assert ((one_product - exact).abs() > 100 * U * sizes).double().mean() > 0.5


def test_an_unwritten_output_does_not_show() -> None:
    out = torch.full((3, 4), float("nan"))
    a, b = some(3, 5), some(5, 4, seed=1)
    add_product(out, split(a), split(b), beta=0)
    torch.testing.assert_close(out, a @ b)


def test_rows_and_transposes_are_those_of_the_parts() -> None:
    a, b = some(6, 5), some(6, 7, seed=1)
    out = torch.zeros(5, 7)
    add_product(out, split(a)[1:4].t(), split(b)[1:4])
    torch.testing.assert_close(out, a[1:4].t() @ b[1:4])


@pytest.mark.parametrize("precision", _products.PRECISIONS)
def test_a_processor_gives_exact_products_whatever_is_asked_for(make_sets, precision: str) -> None:
    sets = make_sets()
    arguments = (*sets.leaves, sets.y1, sets.y2, sets.weight, 12.0, "all", "mean")
    loss, exact = functional.contrastive_alignment(*arguments, precision), sets.loss()
    assert torch.equal(loss, exact)
    for a, b in zip(*(torch.autograd.grad(x, sets.leaves) for x in (loss, exact)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "largest"), [("ieee", 2e-6), ("tf32x3", 4e-6), ("tf32", 1e-2)])
def test_precisions_on_tensor_cores(make_sets, precision: str, largest: float) -> None:
    sets = make_sets(300, 400, width=512, device="cuda")
    exact = sets.to(torch.float64)
    loss = functional.contrastive_alignment(
        *sets.leaves, sets.y1, sets.y2, sets.weight, 12.0, "all", precision=precision
    )
    true = torch.autograd.grad(exact.loss(), exact.leaves)
    for gradient, expected in zip(torch.autograd.grad(loss, sets.leaves), true, strict=True):
        assert (gradient - expected).abs().max() <= largest * expected.abs().max()


def test_torch_keeps_its_setting() -> None:
    before = torch.backends.cuda.matmul.allow_tf32
    for precision, allowed in (("tf32", True), ("tf32x3", True), ("ieee", False)):
        with _products.products(precision):
            assert torch.backends.cuda.matmul.allow_tf32 == allowed
        assert torch.backends.cuda.matmul.allow_tf32 == before
