"""A run on the CPU recycles the memory of large results, and leaves the process as it found it."""

from __future__ import annotations

import os

import pytest

import fastccsa
from fastccsa.training import loop, train


class StopError(Exception):
    """Ends a run early."""


def limit() -> int:
    found = fastccsa.set_cpu_cache_limit(0)
    fastccsa.set_cpu_cache_limit(found)
    return found


@pytest.mark.parametrize("before", [0, 64 << 20])
def test_a_run_recycles_memory_and_restores_the_limit(make_config, monkeypatch, before: int) -> None:
    """Up to a quarter of the machine's memory, unless the user has set a limit."""
    within = []

    def validate(*args) -> None:
        within.append(limit())
        raise StopError

    monkeypatch.setattr(loop, "validate", validate)
    previous = fastccsa.set_cpu_cache_limit(before)
    try:
        with pytest.raises(StopError):
            train(make_config(epochs=1), progress=False)
        assert limit() == before
    finally:
        fastccsa.set_cpu_cache_limit(previous)
    assert within == [before or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4]
