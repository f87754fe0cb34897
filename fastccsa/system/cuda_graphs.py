"""Capturing work as a CUDA graph, so that a failed capture leaves everything else usable."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch

# Graphs whose capture failed. Until torch 2.12 the allocator goes on asking them whether memory is for them.
_failed: list[torch.cuda.CUDAGraph] = []


class CaptureError(RuntimeError):
    """Work could not be captured as a CUDA graph; it has not been done."""


def capture(work: Callable[[], object], stream: torch.cuda.Stream, pool: Any = None) -> torch.cuda.CUDAGraph:
    """Capture what ``work`` launches as a CUDA graph, without doing it.

    If that fails, the current stream is the one of before, and graphs that exist can still be replayed.

    Args:
        work: launches kernels on the current stream, without a host sync.
        stream: the stream to capture on; not the default one.
        pool: the memory of the graph, from `torch.cuda.graph_pool_handle`; None for memory of its own.

    Raises:
        CaptureError: the work cannot be captured; the message is the first line of the reason.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        _capture(graph, work, stream, pool)
    except RuntimeError as error:
        graph.reset()
        _failed.append(graph)
        _reset_generator(stream)
        # The end of the capture fails because the work did, and that error says more.
        reason = error.__context__ if isinstance(error.__context__, RuntimeError) else error
        raise CaptureError(str(reason).split("\n")[0]) from error
    return graph


def _capture(graph: torch.cuda.CUDAGraph, work: Callable[[], object], stream: torch.cuda.Stream, pool: Any) -> None:
    # torch leaves the stream only if the capture succeeds, hence the outer context. The restrictions of a capture apply
    # only to this thread: others pin memory and write files meanwhile.
    capturing = torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
    with torch.cuda.stream(stream), capturing:
        work()


def _reset_generator(stream: torch.cuda.Stream) -> None:
    """Let the GPU's generator leave a failed capture, by a capture that succeeds.

    Until torch 2.12 one flag of the generator stands for any capture, and only a capture that succeeds resets it. While
    it is set, random numbers and the replay of any graph are errors. Replacing the generator's state would not help,
    because each graph keeps the state that it was captured with.
    """
    with suppress(RuntimeError):  # of a GPU that fails altogether, which the next work on it reports
        place = torch.empty(1, device=stream.device)
        _capture(torch.cuda.CUDAGraph(), partial(torch.Tensor.zero_, place), stream, None)
