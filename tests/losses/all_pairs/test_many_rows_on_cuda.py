"""On a GPU: more rows than one block of threads counts to sort them by class, in all ways to sort."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from .on_cuda import assert_a_graph_follows_its_labels, assert_no_host_sync, step

pytestmark = pytest.mark.cuda
# One side has more rows than one launch sorts; with so many pairs, every method sorts rows.
ROWS, WIDTH = (2100, 16_500), 6
# Up to 1024 classes are counted. Labels without a bound, and labels of more classes, are sorted by torch.
LABELS = {"counted": (7, 1, True), "sorted": (1030, 1, True), "any numbers": (7, 10**15, False)}


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(params=LABELS, ids=lambda name: name)
def sets(request: pytest.FixtureRequest, make_sets, dtype):
    classes, factor, weighted = LABELS[request.param]
    made = make_sets(*ROWS, classes, width=WIDTH, dtype=dtype, device="cuda", weighted=weighted)
    return replace(made, y1=made.y1 * factor, y2=made.y2 * factor)


def test_results_equal_the_definition(sets, dtype) -> None:
    exact = sets.to(torch.float64)
    loss = exact.reference()
    for mine, true in zip(step(sets), [loss.detach(), *torch.autograd.grad(loss, exact.leaves)], strict=True):
        rounding = max(2e-5, torch.finfo(mine.dtype).eps)
        torch.testing.assert_close(mine.double(), true, rtol=rounding, atol=rounding * true.abs().max().item())


def test_the_same_bits_twice(sets) -> None:
    assert all(map(torch.equal, step(sets), step(sets)))


def test_a_graph_follows_its_labels(sets) -> None:
    assert_a_graph_follows_its_labels(sets, 1, 500)


def test_no_host_sync(sets) -> None:
    assert_no_host_sync(sets)


@pytest.mark.parametrize(("side", "row"), [(1, 0), (1, 16_499), (0, 2099)])
def test_a_bad_label_is_reported_at_the_next_call(make_sets, dtype, side: int, row: int) -> None:
    made = make_sets(*ROWS, width=WIDTH, dtype=dtype, device="cuda")
    y = [made.y1.clone(), made.y2.clone()]
    y[side][row] = 7
    assert all(x.isnan().all() for x in step(replace(made, y1=y[0], y2=y[1])))
    torch.cuda.synchronize()
    with pytest.raises(RuntimeError, match=rf"target{side + 1}\[{row}\] is 7 in an earlier call on this GPU"):
        made.loss()
    assert made.loss().isfinite()
