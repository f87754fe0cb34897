"""The allocations and kernel launches of a call, as torch's profiler sees them."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fastccsa import set_cpu_cache_limit


def _events(call: Callable[[], object], activities: Iterable[ProfilerActivity]) -> list[dict[str, Any]]:
    """Return the profiler's record of the call, in order of time. The results of the call outlive the record."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise it reports its beginning and end on stderr
    gc.collect()  # garbage of earlier calls is not freed during this one
    with profile(activities=list(activities), profile_memory=True) as profiler:
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    del result
    with TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        return list(json.loads(path.read_text(encoding="utf-8"))["traceEvents"])


def allocations(call: Callable[[], object]) -> list[int]:
    """Return the bytes that `call` requests from torch's CPU allocator, in order; freed bytes are negative.

    fastccsa's pool of recycled memory is off meanwhile, so that all memory comes from torch's allocator.
    """
    limit = set_cpu_cache_limit(0)
    try:
        events = _events(call, [ProfilerActivity.CPU])
    finally:
        set_cpu_cache_limit(limit)
    memory = [event for event in events if event.get("name") == "[memory]"]
    of_cpu = [event for event in memory if event["args"]["Device Type"] == 0]
    return [event["args"]["Bytes"] for event in sorted(of_cpu, key=lambda event: event["ts"])]


def cuda_requests(call: Callable[[], object]) -> tuple[int, int]:
    """Return how often `call` requests memory from torch's CUDA allocator, and how many bytes in all."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()
    call()
    torch.cuda.synchronize()
    after = torch.cuda.memory_stats()
    names = ("allocation.all.allocated", "requested_bytes.all.allocated")
    times, size = (after[name] - before[name] for name in names)
    return times, size


def kernels(call: Callable[[], object]) -> list[str]:
    """Return the names of the kernels, copies and fills that `call` starts on the CUDA device."""
    events = _events(call, [ProfilerActivity.CPU, ProfilerActivity.CUDA])
    return [event["name"] for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
