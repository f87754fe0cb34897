"""On a Hopper GPU: the kernels for float32 features, which multiply them in 16-bit parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ...pairs_by_definition import PARTS, exactly_in_parts
from .on_cuda import assert_a_graph_follows_its_labels, assert_no_host_sync, assert_right, step
from .test_accuracy import CASES, assert_as_accurate_as_differences, draw_case

pytestmark = pytest.mark.cuda
ROWS, MARGIN = (300, 210), 12.0


@pytest.fixture(autouse=True)
def hopper() -> None:
    if torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("these kernels are for GPUs of compute capability 9.0")


@pytest.fixture(params=[512, 301, 70, 1100])
def sets(request: pytest.FixtureRequest, make_sets, use_method: Callable[[str], None]):
    use_method("stored")
    return make_sets(*ROWS, width=request.param, device="cuda")


def compute(*sides: Tensor | None, precision: str, method: str = "stored", **options: object) -> tuple[Tensor, ...]:
    options = {"output_mask": 3, "per_term": False, "margin": MARGIN, **options}
    return torch.ops.fastccsa.all_pairs.default(
        *sides, labels=7, mean=False, precision=precision, method=method, **options
    )


@pytest.mark.parametrize("per_term", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "plain"])
@pytest.mark.parametrize("precision", PARTS)
def test_results_equal_the_definition(sets, precision: str, weighted: bool, per_term: bool) -> None:
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight if weighted else None)
    found = compute(*sides, precision=precision, per_term=per_term)
    assert_right(found, exactly_in_parts(*sides, MARGIN, precision), per_term)


@pytest.mark.parametrize("width", [1, 64, 128, 200, 256, 384, 520, 576, 640, 768, 1024, 2048])
@pytest.mark.parametrize("precision", PARTS)
def test_every_width(make_sets, precision: str, width: int) -> None:
    """Few slabs, more than stay in shared memory, and ranges of gradients that end early."""
    sets = make_sets(*ROWS, width=width, device="cuda")
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight)
    assert_right(compute(*sides, precision=precision), exactly_in_parts(*sides, MARGIN, precision), per_term=False)


@pytest.mark.parametrize(
    ("rows", "width"), [((20000, 700), 400), ((900, 17000), 400), ((129, 2000), 400), ((700, 9000), 800)], ids=str
)
@pytest.mark.parametrize("precision", PARTS)
def test_several_parts_of_the_pairs(make_sets, precision: str, rows: tuple[int, int], width: int) -> None:
    """More rows than coefficients are stored of at a time, on either side."""
    sets = make_sets(*rows, width=width, device="cuda")
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight)
    assert_right(compute(*sides, precision=precision), exactly_in_parts(*sides, MARGIN, precision), per_term=False)


@pytest.mark.parametrize("width", [128, 400, 2048])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_ieee_keeps_its_promise(make_sets, use_method, case, width: int) -> None:
    """Errors are at most twice those of differences in float32, whatever the distances are."""
    use_method("stored")
    assert_as_accurate_as_differences([draw_case(make_sets, case, 200, width, seed, "cuda") for seed in range(3)])


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


@pytest.mark.parametrize(("rows", "width"), [((600, 700), 400), ((300, 280), 768)], ids=str)
def test_the_kernels_are_chosen_for_many_rows(make_sets, rows: tuple[int, int], width: int) -> None:
    """Results have the bits of these kernels, which are not those of cuBLAS's products."""
    sets = make_sets(*rows, width=width, device="cuda")
    sides = (*(z.detach() for z in sets.leaves), sets.y1, sets.y2, sets.weight)
    chosen, stored, products = (compute(*sides, precision="bf16x3", method=m) for m in ("auto", "stored", "products"))
    assert torch.equal(chosen[2], stored[2])
    assert not torch.equal(chosen[2], products[2])
