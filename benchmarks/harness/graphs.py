"""Calls as CUDA graphs, so that short ones are measured by the time of the GPU and not of the host."""

from __future__ import annotations

import itertools

import torch

from benchmarks.harness.turns import Call

WARM_UP = 3  # calls before the capture, which may compile, tune and allocate


def captured(call: Call, count: int = 1) -> Call:
    """Capture the next ``count`` calls, each as a graph of its own; the result replays them in turn."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graphs, results = [], []
    for _ in range(count):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results.append(call())  # keeps their memory
        graphs.append(graph)
    turn = itertools.cycle(zip(graphs, results, strict=True))
    return lambda: next(turn)[0].replay()
