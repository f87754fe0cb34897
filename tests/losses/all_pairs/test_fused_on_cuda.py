"""On a GPU: the fused kernels of 16-bit features, by both kinds of instructions, with rows as given and by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ...pairs_by_definition import exactly

pytestmark = pytest.mark.cuda
METHODS = ("fused", "fused_sorted", "fused_mma", "fused_mma_sorted")
# One width for each kernel, less than what it is padded to.
WIDTHS = (50, 100, 200, 500)
ROWS, MARGIN = (300, 210), 12.0


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, use_method: Callable[[str], None]) -> str:
    use_method(request.param)
    return request.param


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=WIDTHS)
def sets(request: pytest.FixtureRequest, make_sets, dtype):
    return make_sets(*ROWS, width=request.param, dtype=dtype, device="cuda")


def step(sets) -> list[Tensor]:
    loss = sets.loss()
    return [loss.detach(), *torch.autograd.grad(loss, sets.leaves)]


@pytest.mark.parametrize("per_term", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
def test_results_equal_the_definition(sets, method: str, weighted: bool, per_term: bool) -> None:
    weight = sets.weight if weighted else None
    found = torch.ops.fastccsa.all_pairs.default(
        *(z.detach() for z in sets.leaves), sets.y1, sets.y2, weight, labels=7, margin=MARGIN, mean=False,
        precision="ieee", output_mask=3, per_term=per_term, method=method,
    )  # fmt: skip
    exact = exactly(*sets.leaves, sets.y1, sets.y2, weight, MARGIN)
    assert ((found[1] - exact.terms).abs() <= exact.term_bounds).all()
    torch.testing.assert_close(found[0], found[1].sum())
    for gradient, expected, bound in zip(found[2:], exact.gradients, exact.bounds, strict=True):
        if per_term:
            assert ((gradient - expected).abs() <= bound).all()
        else:
            assert ((gradient[0] - expected.sum(0)).abs() <= bound.sum(0)).all()


def test_the_same_bits_twice(sets, method: str) -> None:
    assert all(map(torch.equal, step(sets), step(sets)))


def test_a_graph_follows_its_labels(sets, method: str) -> None:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(sets)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(sets)
    for shift in (1, 100):
        sets.y1.copy_(sets.y1.roll(shift))
        sets.y2.copy_(sets.y2.flip(0))
        graph.replay()
        assert all(map(torch.equal, captured, step(sets)))


def test_no_host_sync(sets, method: str) -> None:
    step(sets)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(sets)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_bad_label_is_reported_at_the_next_call(sets, method: str) -> None:
    y2 = sets.y2.clone()
    y2[ROWS[1] - 1] = 7
    assert all(x.isnan().all() for x in step(replace(sets, y2=y2)))
    torch.cuda.synchronize()
    with pytest.raises(RuntimeError, match=rf"target2\[{ROWS[1] - 1}\] is 7 in an earlier call on this GPU"):
        sets.loss()
    assert sets.loss().isfinite()
