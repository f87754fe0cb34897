"""What a call allocates and launches, as torch's profiler sees it."""

from __future__ import annotations

import gc
import itertools
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from fastccsa import set_cpu_cache_limit

__all__ = ["allocations", "cuda_requests", "kernels", "peak_bytes"]

_REQUESTS = "allocation", "requested_bytes"  # as torch.cuda.memory_stats names them


def _events(call: Callable[[], object], activities: Iterable[ProfilerActivity]) -> list[dict[str, Any]]:
    """The profiler's record of the call, in order of time. What the call returns outlives the record."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it reports on stderr that it begins and ends
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
    """Bytes that `call` asks torch's CPU allocator for, in order; what it gives back is negative.

    Meanwhile fastccsa recycles no memory: what it would take from there comes from torch's allocator, and counts.
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
    """How often `call` asks torch's CUDA allocator for memory, and for how many bytes in all."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()
    call()
    torch.cuda.synchronize()
    after = torch.cuda.memory_stats()
    times, size = (after[f"{name}.all.allocated"] - before[f"{name}.all.allocated"] for name in _REQUESTS)
    return times, size


def kernels(call: Callable[[], object]) -> list[str]:
    """Names of what `call` starts on the CUDA device: kernels, copies and fills."""
    events = _events(call, [ProfilerActivity.CPU, ProfilerActivity.CUDA])
    return [event["name"] for event in events if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]


def peak_bytes(call: Callable[[], object], device: torch.device) -> int:
    """The most memory that `call` holds at one time on `device`, beyond what was held before; its result counts.

    On CUDA it is what torch's allocator handed out; on the CPU the highest running sum of :func:`allocations`.
    """
    if device.type == "cpu":
        return max(itertools.accumulate(allocations(call)), default=0)
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    result = call()
    torch.cuda.synchronize(device)
    del result
    return torch.cuda.max_memory_allocated(device) - before
