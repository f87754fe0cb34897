"""The fused loss allocates only its results and one buffer between the passes, and launches few kernels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fastccsa import functional

from .counting import allocations, cuda_requests, kernels

PAIRS, CLASSES, WIDTH = 300, 7, 64


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def step(request: pytest.FixtureRequest, device: str, make_case) -> Callable[[], object]:
    """A forward and a backward pass; the upstream gradient already exists."""
    case = make_case(PAIRS, CLASSES, WIDTH, request.param, device)
    weights = tuple(w if w is None else w.float() for w in case.weights)
    upstream = torch.ones((), device=device)

    def step() -> object:
        loss = functional.weighted_ccsa_loss(*case.inputs, *case.targets, *weights)
        return torch.autograd.grad(loss, case.inputs, upstream)

    step()  # allocations that only the first call makes do not count
    return step


@pytest.fixture
def outputs(step, request: pytest.FixtureRequest) -> list[int]:
    """Return the bytes of the loss, of its four terms, and of the gradients."""
    size = torch.empty((), dtype=request.node.callspec.params["step"]).element_size()
    gradients = [PAIRS * columns * size for columns in (CLASSES, CLASSES, WIDTH, WIDTH)]
    return [4, 4 * 4, *gradients]


def most_saved(pairs: int) -> int:
    """Bytes that may be saved between forward and backward: a few float32 values per pair, no copy of any input."""
    return 4 * (5 * pairs + 2 + 6 * min(pairs, 1024))


@pytest.mark.parametrize("device", ["cpu"])
def test_allocations_on_the_cpu(step, outputs) -> None:
    allocated = [size for size in allocations(step) if size > 0]
    for size in outputs:
        assert size in allocated
        allocated.remove(size)
    (saved,) = allocated
    assert saved <= most_saved(PAIRS)


@pytest.mark.cuda
@pytest.mark.parametrize("device", ["cuda"])
def test_memory_on_cuda(step, outputs) -> None:
    assert len(step()) == 4
    times, requested = cuda_requests(step)
    assert times == len(outputs) + 1
    assert requested <= sum(outputs) + most_saved(PAIRS)


@pytest.mark.cuda
@pytest.mark.parametrize("device", ["cuda"])
def test_kernels_on_cuda(step) -> None:
    launched = kernels(step)
    assert len(launched) == 2, launched
    assert all("fastccsa" in name for name in launched)
