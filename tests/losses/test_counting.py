"""Allocations and launches are counted correctly."""

from __future__ import annotations

import pytest
import torch

from .counting import allocations, kernels


def test_allocations_in_order() -> None:
    def call() -> torch.Tensor:
        first = torch.empty(100, dtype=torch.uint8)
        del first
        return torch.empty(70, dtype=torch.uint8)

    assert allocations(call) == [100, -100, 70]


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_nothing_is_launched_where_there_is_no_gpu() -> None:
    if not torch.cuda.is_available():
        assert kernels(lambda: torch.ones(3) + 1) == []
