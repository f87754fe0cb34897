"""Calls that are replayed as CUDA graphs."""

from __future__ import annotations

import itertools

import pytest
import torch

from benchmarks.harness.graphs import WARM_UP, captured


@pytest.mark.cuda
def test_captured_calls_are_replayed_in_turn() -> None:
    """Each graph has the arguments of its own call; replays begin with the first one."""
    sources = torch.arange(5.0, device="cuda")
    result = torch.zeros((), device="cuda")
    places = itertools.chain([0] * WARM_UP, itertools.count(1))
    replay = captured(lambda: result.copy_(sources[next(places)]), 3)
    seen = []
    for _ in range(4):
        replay()
        seen.append(result.item())
    assert seen == [1, 2, 3, 1]
