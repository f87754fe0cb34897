"""Named ranges in a profiler's timeline: always in `torch.profiler`'s trace, in NVTX's once they are switched on."""

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
    """Switch NVTX ranges on or off; the environment variable ``FASTCCSA_NVTX=1`` switches them on at import.

    While they are on, each fused op marks its forward and its backward pass, and the trainer its stages, in the domain
    ``fastccsa``. While they are off, they cost a test of a flag.

    Returns:
        Whether they were on before.

    Raises:
        InputError: they are to be switched on, and the package nvtx is not installed.
    """
    global _enabled
    if enabled:
        require("train", "nvtx")
    before, _enabled = _enabled, enabled
    return before


nvtx_ranges(os.environ.get("FASTCCSA_NVTX", "0") not in ("", "0"))


def named(name: str, function: Callable[P, R]) -> Callable[P, R]:
    """Return ``function`` with each of its calls marked as a `stage` called ``name``."""
    from torch.autograd import profiler

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if not (_enabled or profiler._is_profiler_enabled):
            return function(*args, **kwargs)
        with stage(name):
            return function(*args, **kwargs)

    return call


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Mark the block as a range called ``name``: in `torch.profiler`'s trace, and in NVTX's while its ranges are on."""
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
