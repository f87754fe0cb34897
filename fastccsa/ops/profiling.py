"""Named ranges in a profiler's timeline: in `torch.profiler`'s trace, and, once they are switched on, in NVTX's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import ParamSpec, TypeVar

__all__ = ["named", "nvtx_ranges", "stage"]

P = ParamSpec("P")
R = TypeVar("R")

_enabled = os.environ.get("FASTCCSA_NVTX", "0") not in ("", "0")


def nvtx_ranges(enabled: bool = True) -> bool:
    """Switch the ranges on or off; the environment variable ``FASTCCSA_NVTX=1`` switches them on from the start.

    Each fused op then marks its forward and its backward, in the domain ``fastccsa``. Off, they cost a test of a flag.

    Returns:
        Whether they were on before.
    """
    global _enabled
    before, _enabled = _enabled, enabled
    return before


def named(name: str, function: Callable[P, R]) -> Callable[P, R]:
    """Make ``function`` mark a `stage` called ``name`` around each of its calls."""
    from torch.autograd import profiler

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not (_enabled or profiler._is_profiler_enabled):
            return function(*args, **kwargs)
        with stage(name):
            return function(*args, **kwargs)

    return call


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Mark the block as a range called ``name``: in `torch.profiler`'s trace, and in NVTX's while ranges are on."""
    import torch

    # record_function costs microseconds even with no profiler there to listen.
    profiled = torch.autograd.profiler._is_profiler_enabled
    with torch.profiler.record_function(name) if profiled else nullcontext():
        if not _enabled:
            yield
            return
        import nvtx

        with nvtx.annotate(name, domain="fastccsa"):
            yield
