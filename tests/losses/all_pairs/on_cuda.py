"""What every way to compute the loss over all pairs on a GPU must do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...pairs_by_definition import Exact
from .conftest import Sets


def step(sets: Sets) -> list[Tensor]:
    """Return the loss and both gradients."""
    loss = sets.loss()
    return [loss.detach(), *torch.autograd.grad(loss, sets.leaves)]


def assert_a_graph_follows_its_labels(sets: Sets, *shifts: int) -> None:
    """Check a captured step with other labels: the first side's are shifted, the second side's are reversed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(sets)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(sets)
    for shift in shifts:
        sets.y1.copy_(sets.y1.roll(shift))
        sets.y2.copy_(sets.y2.flip(0))
        graph.replay()
        assert all(map(torch.equal, captured, step(sets)))


def assert_no_host_sync(sets: Sets) -> None:
    step(sets)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(sets)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def assert_right(found: Sequence[Tensor], exact: Exact, per_term: bool) -> None:
    """Results of the op are within their bounds: the loss, its terms, and the gradients, of each term or together."""
    assert ((found[1] - exact.terms).abs() <= exact.term_bounds).all()
    torch.testing.assert_close(found[0], found[1].sum())
    for gradient, expected, bound in zip(found[2:], exact.gradients, exact.bounds, strict=True):
        if per_term:
            assert ((gradient - expected).abs() <= bound).all()
        else:
            assert ((gradient[0] - expected.sum(0)).abs() <= bound.sum(0)).all()
