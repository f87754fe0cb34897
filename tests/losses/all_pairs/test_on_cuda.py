"""On a GPU: launches and allocations for few pairs, and no host sync, so that a graph can capture any call."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import fastccsa
from fastccsa import functional

from ..counting import cuda_requests, kernels

pytestmark = pytest.mark.cuda
ROWS1, ROWS2, WIDTH = 48, 64, 100
MANY, MORE = (300, 500), (2100, 2200)


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def sets(make_sets, dtype):
    return make_sets(ROWS1, ROWS2, width=WIDTH, dtype=dtype, device="cuda")


@pytest.fixture(
    params=[((ROWS1, ROWS2), True), (MANY, True), (MANY, False), (MORE, True)],
    ids=["few", "more", "more without weights", "millions"],
)
def any_sets(request: pytest.FixtureRequest, make_sets, dtype):
    rows, weighted = request.param
    return make_sets(*rows, width=WIDTH, dtype=dtype, device="cuda", weighted=weighted)


def step_of(sets) -> Callable[[], tuple[Tensor, ...]]:
    """Return a function that runs forward and backward. It does not create the upstream gradient."""
    upstream = torch.ones((), device="cuda")

    def step() -> tuple[Tensor, ...]:
        loss = sets.loss()
        return (loss.detach(), *torch.autograd.grad(loss, sets.leaves, upstream))

    step()  # what only the first call creates does not count
    return step


@pytest.fixture
def step(sets) -> Callable[[], tuple[Tensor, ...]]:
    return step_of(sets)


def test_launches(sets, step) -> None:
    """Two for the loss and the gradients, and one multiplication per side. Then 16-bit gradients are rounded."""
    launched = kernels(step)
    assert sum("fastccsa" in name for name in launched) == 2, launched
    assert len(launched) == (4 if sets.z1.dtype == torch.float32 else 6), launched


def test_allocations(sets, step) -> None:
    """Results, gradients before their multiplication, one coefficient per pair, and the sums of blocks."""
    assert len(step()) == 3
    _, requested = cuda_requests(step)
    rows = (ROWS1 + ROWS2) * WIDTH
    blocks = -(-ROWS1 // 4) * -(-ROWS2 // 32)
    results = 3 * 4 + rows * (4 if sets.z1.dtype == torch.float32 else 4 + 2)
    assert requested <= results + 4 * rows + 4 * ROWS1 * ROWS2 + 2 * 8 * blocks


def test_no_host_sync(any_sets) -> None:
    step = step_of(any_sets)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_graph_follows_its_inputs(any_sets) -> None:
    """The graph of the whole loss is captured once, and replayed with other features and labels."""
    sets, step = any_sets, step_of(any_sets)
    logits = [torch.randn(len(z), 7, device="cuda", dtype=z.dtype, requires_grad=True) for z in sets.leaves]
    loss_fn = fastccsa.WeightedCCSALoss(pair_weight=sets.weight, margin=12.0, pairs="all").cuda()
    inputs = (*logits, *sets.leaves)

    def whole() -> tuple[Tensor, ...]:
        terms = loss_fn.terms(*inputs, sets.y1, sets.y2)
        return (*(t.detach() for t in terms), *torch.autograd.grad(terms.loss, inputs), *step())

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        whole()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = whole()
    for shift in (1, 2):
        with torch.no_grad():
            for z in sets.leaves:
                z.copy_(z.roll(shift, 0) * 1.1)
            sets.y1.copy_(sets.y1.roll(1))
        graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(captured, whole(), strict=True))


BROKEN = [
    ("target1", (11, 7), r"target1\[11\] is 7 in an earlier call on this GPU.*labels must be in \[0, 7\)"),
    ("target2", (60, -1), r"target2\[60\] is -1 in an earlier call on this GPU"),
    (
        "pair_weight",
        (slice(None), -0.5),
        r"pair_weight\[\d, \d\] is negative or not finite in an earlier call",
    ),
]


@pytest.mark.parametrize("rows", [(ROWS1, ROWS2), MANY], ids=["few", "more"])
@pytest.mark.parametrize(("name", "change", "message"), BROKEN)
def test_a_bad_value_is_reported_at_the_next_call(make_sets, rows, name, change, message) -> None:
    sets = make_sets(*rows, width=WIDTH, device="cuda")
    arguments = {"target1": sets.y1.clone(), "target2": sets.y2.clone(), "pair_weight": sets.weight.clone()}
    arguments[name][change[0]] = change[1]
    assert functional.contrastive_alignment(*sets.leaves, *arguments.values(), margin=12.0, pairs="all").isnan()
    torch.cuda.synchronize()
    with pytest.raises(RuntimeError, match=message):
        sets.loss()
    assert sets.loss().isfinite()


def test_a_label_beyond_the_logits_is_reported_too(make_sets) -> None:
    """Without pair weights the op does not look up labels, but the classification does."""
    sets = make_sets(ROWS1, ROWS2, width=WIDTH, device="cuda", weighted=False)
    logits = [torch.zeros(n, 7, device="cuda") for n in (ROWS1, ROWS2)]
    y1 = sets.y1.clone()
    y1[5] = 9
    message = r"target1\[5\] is 9 in an earlier call on this GPU"
    try:
        loss = functional.weighted_ccsa_loss(*logits, *sets.leaves, y1, sets.y2, pairs="all")
    except RuntimeError as error:
        # The loss calls several ops. If the first one's kernel finishes in time, a later one reports its error.
        assert re.search(message, str(error))  # noqa: PT017 - which of the two calls raises it depends on time
        return
    assert loss.isnan()
    torch.cuda.synchronize()
    with pytest.raises(RuntimeError, match=message):
        functional.weighted_ccsa_loss(*logits, *sets.leaves, sets.y1, sets.y2, pairs="all")
