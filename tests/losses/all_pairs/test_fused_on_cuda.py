"""On a GPU: the fused kernels of 16-bit features, by both kinds of instructions, with rows as given and by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ...pairs_by_definition import exactly
from .on_cuda import assert_a_graph_follows_its_labels, assert_no_host_sync, assert_right, step

pytestmark = pytest.mark.cuda
METHODS = ("fused", "fused_sorted", "fused_mma", "fused_mma_sorted", "stored", "stored_sorted")
# One width for each kernel, less than what it is padded to. Of the widest, all methods store coefficients.
WIDTHS = (50, 100, 200, 500, 1100)
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


@pytest.mark.parametrize("per_term", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
def test_results_equal_the_definition(sets, method: str, weighted: bool, per_term: bool) -> None:
    weight = sets.weight if weighted else None
    found = torch.ops.fastccsa.all_pairs.default(
        *(z.detach() for z in sets.leaves), sets.y1, sets.y2, weight, labels=7, margin=MARGIN, mean=False,
        precision="ieee", output_mask=3, per_term=per_term, method=method,
    )  # fmt: skip
    assert_right(found, exactly(*sets.leaves, sets.y1, sets.y2, weight, MARGIN), per_term)


def test_the_same_bits_twice(sets, method: str) -> None:
    assert all(map(torch.equal, step(sets), step(sets)))


def test_a_graph_follows_its_labels(sets, method: str) -> None:
    assert_a_graph_follows_its_labels(sets, 1, 100)


def test_no_host_sync(sets, method: str) -> None:
    assert_no_host_sync(sets)


def test_a_bad_label_is_reported_at_the_next_call(sets, method: str) -> None:
    y2 = sets.y2.clone()
    y2[ROWS[1] - 1] = 7
    assert all(x.isnan().all() for x in step(replace(sets, y2=y2)))
    torch.cuda.synchronize()
    with pytest.raises(RuntimeError, match=rf"target2\[{ROWS[1] - 1}\] is 7 in an earlier call on this GPU"):
        sets.loss()
    assert sets.loss().isfinite()
