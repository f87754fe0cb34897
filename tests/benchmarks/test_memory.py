"""The peak memory of a call."""

from __future__ import annotations

import torch

from benchmarks.harness.memory import cpu_cache, peak_bytes
from fastccsa import set_cpu_cache_limit

CPU = torch.device("cpu")


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


def pool_limit() -> int:
    limit = set_cpu_cache_limit(0)
    set_cpu_cache_limit(limit)
    return limit


def test_the_pool_is_restored() -> None:
    before, first = pool_limit(), []
    with cpu_cache(5000, lambda: first.append(pool_limit())):
        assert pool_limit() == 5000
    assert first == [5000]
    assert pool_limit() == before
