"""Memory and allocations are counted right."""

from __future__ import annotations

import pytest
import torch

from fastccsa.benchmarking.counting import allocations, kernels, peak_bytes

CPU = torch.device("cpu")


def test_allocations_in_order() -> None:
    def call() -> torch.Tensor:
        first = torch.empty(100, dtype=torch.uint8)
        del first
        return torch.empty(70, dtype=torch.uint8)

    assert allocations(call) == [100, -100, 70]


def test_peak_is_what_is_held_at_one_time() -> None:
    def call() -> torch.Tensor:
        first = torch.empty(1000, dtype=torch.uint8)
        second = torch.empty(2000, dtype=torch.uint8)
        del first, second
        return torch.empty(500, dtype=torch.uint8)

    assert peak_bytes(call, CPU) == 3000


def test_what_was_there_before_does_not_count() -> None:
    there = torch.ones(5000)
    assert peak_bytes(there.neg_, CPU) == 0
    assert peak_bytes(there.neg, CPU) == 20000


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_nothing_is_launched_where_there_is_no_gpu() -> None:
    if not torch.cuda.is_available():
        assert kernels(lambda: torch.ones(3) + 1) == []
