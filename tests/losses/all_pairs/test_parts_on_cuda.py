"""On a Hopper GPU: the kernels for float32 features of 257 to 512 columns, which multiply them in 16-bit parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ...pairs_by_definition import PARTS, Exact, exactly_in_parts
from .on_cuda import assert_a_graph_follows_its_labels, assert_no_host_sync, step
from .test_accuracy import CASES, EPS

pytestmark = pytest.mark.cuda
ROWS, MARGIN = (300, 210), 12.0


@pytest.fixture(autouse=True)
def hopper() -> None:
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("these kernels are for GPUs of compute capability 9.0")


@pytest.fixture(params=[512, 301])
def sets(request: pytest.FixtureRequest, make_sets, use_method: Callable[[str], None]):
    use_method("stored")
    return make_sets(*ROWS, width=request.param, device="cuda")


def compute(*sides: Tensor | None, precision: str, method: str = "stored", **options: object) -> tuple[Tensor, ...]:
    options = {"output_mask": 3, "per_term": False, "margin": MARGIN, **options}
    return torch.ops.fastccsa.all_pairs.default(
        *sides, labels=7, mean=False, precision=precision, method=method, **options
    )


def assert_right(found: tuple[Tensor, ...], exact: Exact, per_term: bool) -> None:
    assert ((found[1] - exact.terms).abs() <= exact.term_bounds).all()
    torch.testing.assert_close(found[0], found[1].sum())
    for gradient, expected, bound in zip(found[2:], exact.gradients, exact.bounds, strict=True):
        if per_term:
            assert ((gradient - expected).abs() <= bound).all()
        else:
            assert ((gradient[0] - expected.sum(0)).abs() <= bound.sum(0)).all()


@pytest.mark.parametrize("per_term", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
@pytest.mark.parametrize("precision", PARTS)
def test_results_equal_the_definition(sets, precision: str, weighted: bool, per_term: bool) -> None:
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight if weighted else None)
    found = compute(*sides, precision=precision, per_term=per_term)
    assert_right(found, exactly_in_parts(*sides, MARGIN, precision), per_term)


@pytest.mark.parametrize("rows", [(20000, 700), (900, 17000), (129, 2000)], ids=str)
@pytest.mark.parametrize("precision", PARTS)
def test_several_parts_of_the_pairs(make_sets, precision: str, rows: tuple[int, int]) -> None:
    """More rows than coefficients are stored of at a time, on either side."""
    sets = make_sets(*rows, width=400, device="cuda")
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight)
    assert_right(compute(*sides, precision=precision), exactly_in_parts(*sides, MARGIN, precision), per_term=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_ieee_keeps_its_promise(make_sets, use_method, case) -> None:
    """Errors are at most twice those of differences in float32, whatever the distances are."""
    use_method("stored")
    errors, plain, sizes = [], [], []
    for seed in range(3):
        random = torch.Generator().manual_seed(seed)
        z1, z2 = case(torch.randn(200, 400, generator=random, dtype=torch.float64), random)
        sets = replace(
            make_sets(200, 200, 5, 400, seed=seed, device="cuda"), z1=z1.float().cuda(), z2=z2.float().cuda()
        )
        sets, exact = sets.to(torch.float32), sets.to(torch.float64)
        true = exact.reference()
        truth = [true.detach()[None], *torch.autograd.grad(true, exact.leaves)]
        for outcome, loss in ((errors, sets.loss()), (plain, sets.reference())):
            values = [loss.detach()[None], *torch.autograd.grad(loss, sets.leaves)]
            outcome.append([v.double() - t for v, t in zip(values, truth, strict=True)])
        sizes.append(truth)
    for k, name in enumerate(("loss", "gradient of z1", "gradient of z2")):
        ours, theirs, size = (
            torch.cat([draw[k].flatten() for draw in draws]).square().mean().sqrt().item()
            for draws in (errors, plain, sizes)
        )
        assert ours <= 2 * max(theirs, EPS * size), f"{name}: error {ours:.3g}, plain differences' {theirs:.3g}"


@pytest.mark.parametrize("precision", PARTS)
@pytest.mark.parametrize("output_mask", [0, 1, 2])
def test_only_requested_gradients_are_computed(sets, precision: str, output_mask: int) -> None:
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight)
    whole, found = (compute(*sides, precision=precision, output_mask=mask) for mask in (3, output_mask))
    assert torch.equal(found[0], whole[0])
    for side in range(2):
        if output_mask >> side & 1:
            assert torch.equal(found[2 + side], whole[2 + side])
        else:
            assert found[2 + side].numel() == 0


@pytest.mark.parametrize("precision", PARTS)
def test_the_same_bits_twice(sets, precision: str) -> None:
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight)
    assert all(map(torch.equal, *(compute(*sides, precision=precision) for _ in range(2))))


def test_a_graph_follows_its_labels(sets) -> None:
    assert_a_graph_follows_its_labels(sets, 1, 100)


def test_no_host_sync(sets) -> None:
    assert_no_host_sync(sets)


def test_a_bad_label_is_reported_at_the_next_call(sets) -> None:
    y2 = sets.y2.clone()
    y2[ROWS[1] - 1] = 7
    assert all(x.isnan().all() for x in step(replace(sets, y2=y2)))
    torch.cuda.synchronize()
    with pytest.raises(RuntimeError, match=rf"target2\[{ROWS[1] - 1}\] is 7 in an earlier call on this GPU"):
        sets.loss()
    assert sets.loss().isfinite()


def test_the_kernels_are_chosen_for_many_rows(make_sets) -> None:
    """Results have the bits of these kernels, which are not those of cuBLAS's products."""
    sets = make_sets(600, 700, width=400, device="cuda")
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight)
    chosen, stored, products = (compute(*sides, precision="bf16x3", method=m) for m in ("auto", "stored", "products"))
    assert torch.equal(chosen[2], stored[2])
    assert not torch.equal(chosen[2], products[2])
