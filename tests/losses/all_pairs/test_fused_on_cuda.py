"""On a GPU: the fused kernels of 16-bit features, by both kinds of instructions, with rows as given and by class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

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


def compute(sets, weight: Tensor | None, method: str, per_term: bool = False) -> tuple[Tensor, ...]:
    return torch.ops.fastccsa.all_pairs.default(
        *(z.detach() for z in sets.leaves), sets.y1, sets.y2, weight, labels=7, margin=MARGIN, mean=False,
        precision="ieee", output_mask=3, per_term=per_term, method=method,
    )  # fmt: skip


@pytest.mark.parametrize("per_term", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
def test_results_equal_the_definition(sets, method: str, weighted: bool, per_term: bool) -> None:
    weight = sets.weight if weighted else None
    found = compute(sets, weight, method, per_term)
    assert_right(found, exactly(*sets.leaves, sets.y1, sets.y2, weight, MARGIN), per_term)


@pytest.mark.parametrize("width", [500, 600, 2048])
def test_many_tiles(make_sets, dtype, method: str, width: int) -> None:
    """Runs of several tiles, and rows and columns without a whole cluster."""
    sets = make_sets(650, 400, width=width, dtype=dtype, device="cuda")
    found = compute(sets, sets.weight, method)
    assert_right(found, exactly(*sets.leaves, sets.y1, sets.y2, sets.weight, MARGIN), per_term=False)


@pytest.mark.parametrize("rows", [(16_500, 30), (30, 16_500)], ids=str)
@pytest.mark.parametrize("width", [500, 520])
def test_several_parts_of_the_pairs(make_sets, dtype, method: str, width: int, rows: tuple[int, int]) -> None:
    """More rows than coefficients are stored of at a time, on either side."""
    sets = make_sets(*rows, width=width, dtype=dtype, device="cuda")
    found = compute(sets, sets.weight, method)
    assert_right(found, exactly(*sets.leaves, sets.y1, sets.y2, sets.weight, MARGIN), per_term=False)


@pytest.mark.parametrize(
    ("rows", "chosen"), [((200, 700), "stored"), ((100, 700), "products"), ((150, 700), "products")]
)
def test_what_is_chosen_for_wide_features(make_sets, dtype, rows: tuple[int, int], chosen: str) -> None:
    """Coefficients are stored from 128 rows of both sides on, unless one has more than four times as many."""
    sets = make_sets(*rows, width=700, dtype=dtype, device="cuda")
    auto, stored, products = (compute(sets, sets.weight, method) for method in ("auto", "stored", "products"))
    assert not torch.equal(stored[2], products[2])
    assert torch.equal(auto[2], stored[2] if chosen == "stored" else products[2])


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
