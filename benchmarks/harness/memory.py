"""The memory that a call holds, and fastccsa's pool of recycled memory."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness.turns import Call
from fastccsa import set_cpu_cache_limit


@contextmanager
def cpu_cache(limit: int, first: Call = lambda: None) -> Iterator[None]:
    """Let fastccsa's pool of recycled CPU memory keep ``limit`` bytes in the block; the call ``first`` fills it."""
    before = set_cpu_cache_limit(limit)
    try:
        first()
        yield
    finally:
        set_cpu_cache_limit(before)


def peak_bytes(call: Call, device: torch.device) -> int:
    """Return the peak memory of a call in bytes, beyond what was held before; its result counts.

    Only memory from torch's allocator is counted. fastccsa's pool is off during the call, because its memory would not
    be seen.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = call()
        torch.cuda.synchronize(device)
        del result
        return torch.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise the profiler writes to stderr when it starts and stops
    gc.collect()  # so that garbage of earlier calls is not freed during this one
    with cpu_cache(0), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        result = call()
    del result
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes), default=0)
