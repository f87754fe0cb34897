"""Named ranges in a profiler's timeline: in the trace of `torch.profiler`, and in NVTX once that is switched on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import ParamSpec, TypeVar

from fastccsa.system.extras import require

__all__ = ["named", "nvtx_ranges", "stage"]

P = ParamSpec("P")
R = TypeVar("R")

_enabled = False


def nvtx_ranges(enabled: bool = True) -> bool:
    """Switch NVTX ranges on or off; the environment variable ``FASTCCSA_NVTX=1`` switches them on from the start.

    While they are on, each fused op marks its forward and its backward pass, in the domain ``fastccsa``. While they are
    off, they cost only the test of a flag. `torch.profiler` always sees the same ranges, and needs no other package.

    Args:
        enabled: True switches them on, False off.

    Returns:
        Whether they were on before.

    Raises:
        InputError: the package ``nvtx`` is not installed; the message has the pip command.
    """
    global _enabled
    if enabled:
        require("nvtx")
    before, _enabled = _enabled, enabled
    return before


if os.environ.get("FASTCCSA_NVTX", "0") not in ("", "0"):
    nvtx_ranges()


def named(name: str, function: Callable[P, R]) -> Callable[P, R]:
    """Wrap ``function`` so that each of its calls is a `stage` called ``name``."""
    from torch.autograd import profiler

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not (_enabled or profiler._is_profiler_enabled):
            return function(*args, **kwargs)
        with stage(name):
            return function(*args, **kwargs)

    return call


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Mark the block as a range called ``name``, for `torch.profiler` and, while `nvtx_ranges` are on, for NVTX."""
    import torch

    # record_function costs microseconds even when no profiler is running.
    profiled = torch.autograd.profiler._is_profiler_enabled
    with torch.profiler.record_function(name) if profiled else nullcontext():
        if not _enabled:
            yield
            return
        import nvtx

        with nvtx.annotate(name, domain="fastccsa"):
            yield
