"""On a GPU: the kernel that reads many rows once for the gradient of few; on GPUs without it, what runs instead."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ...pairs_by_definition import exactly
from .conftest import Sets

pytestmark = pytest.mark.cuda
MARGIN = 12.0
FEW, MANY = 40, 2100


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


def compute(sets: Sets, output_mask: int, method: str = "streamed", per_term: bool = False) -> tuple[Tensor, ...]:
    return torch.ops.fastccsa.all_pairs.default(
        *(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight, labels=7, margin=MARGIN, mean=False,
        precision="ieee", output_mask=output_mask, per_term=per_term, method=method,
    )  # fmt: skip


def assert_right(sets: Sets, found: tuple[Tensor, ...], output_mask: int, per_term: bool = False) -> None:
    exact = exactly(*sets.leaves, sets.y1, sets.y2, sets.weight, MARGIN)
    assert ((found[1] - exact.terms).abs() <= exact.term_bounds).all()
    torch.testing.assert_close(found[0], found[1].sum())
    for side in (k for k in range(2) if output_mask >> k & 1):
        expected, bound = exact.gradients[side], exact.bounds[side]
        if not per_term:
            expected, bound = expected.sum(0, keepdim=True), bound.sum(0, keepdim=True)
        assert ((found[2 + side] - expected).abs() <= bound).all()


@pytest.mark.parametrize("per_term", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
@pytest.mark.parametrize("width", [264, 500, 512])
@pytest.mark.parametrize("output_mask", [0, 1, 2])
def test_results_equal_the_definition(
    make_sets, output_mask: int, width: int, weighted: bool, per_term: bool, dtype: torch.dtype
) -> None:
    rows = (MANY, FEW) if output_mask == 2 else (FEW, MANY)
    sets = make_sets(*rows, width=width, dtype=dtype, device="cuda", weighted=weighted)
    assert_right(sets, compute(sets, output_mask, per_term=per_term), output_mask, per_term)


@pytest.mark.parametrize("rows", [(1, 70000), (64, 2048), (65, 300), (300, 129)])
def test_sizes(make_sets, rows: tuple[int, int], dtype: torch.dtype) -> None:
    """More tiles than blocks of threads, whole tiles, and several blocks of rows."""
    sets = make_sets(*rows, width=512, dtype=dtype, device="cuda")
    assert_right(sets, compute(sets, 1), 1)


def test_rows_with_gaps(make_sets, dtype: torch.dtype) -> None:
    sets = make_sets(FEW, MANY, width=512, dtype=dtype, device="cuda")
    wide = [torch.cat([z.detach(), z.detach()], 1)[:, :512] for z in sets.leaves]
    found = torch.ops.fastccsa.all_pairs.default(
        *wide, sets.y1, sets.y2, sets.weight, labels=7, margin=MARGIN, mean=False, precision="ieee", output_mask=1,
        per_term=False, method="streamed",
    )  # fmt: skip
    assert all(map(torch.equal, found, compute(sets, 1)))


def test_it_is_chosen_for_few_rows_against_many(make_sets, dtype: torch.dtype) -> None:
    """The same bits as by name; with both gradients, other kernels run."""
    sets = make_sets(FEW, MANY, width=512, dtype=dtype, device="cuda")
    assert all(map(torch.equal, compute(sets, 1, "auto"), compute(sets, 1)))
    assert_right(sets, compute(sets, 3), 3)


def test_the_same_bits_twice_without_a_host_sync(make_sets, dtype: torch.dtype) -> None:
    sets = make_sets(FEW, MANY, width=512, dtype=dtype, device="cuda")
    once = compute(sets, 1)
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = compute(sets, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(map(torch.equal, once, again))


def test_a_graph_follows_its_labels(make_sets, dtype: torch.dtype) -> None:
    sets = make_sets(FEW, MANY, width=512, dtype=dtype, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        compute(sets, 1)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = compute(sets, 1)
    for _ in range(2):
        sets.y1.copy_(sets.y1.roll(1))
        sets.y2.copy_(sets.y2.flip(0))
        graph.replay()
        assert all(map(torch.equal, captured, compute(sets, 1)))


def test_a_bad_label_is_reported_at_the_next_call(make_sets, dtype: torch.dtype) -> None:
    sets = make_sets(FEW, MANY, width=512, dtype=dtype, device="cuda")
    good = sets.y2[MANY - 1].item()
    sets.y2[MANY - 1] = 7
    assert all(x.isnan().all() for x in compute(sets, 1))
    torch.cuda.synchronize()
    sets.y2[MANY - 1] = good
    with pytest.raises(RuntimeError, match=rf"target2\[{MANY - 1}\] is 7 in an earlier call on this GPU"):
        compute(sets, 1)
    assert compute(sets, 1)[0].isfinite()
