"""A failed capture does no harm: on a simulation of torch's state on the host, and on a GPU."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch

from fastccsa.system.cuda_graphs import CaptureError, capture

UNEXPECTED = "Offset increment outside graph capture encountered unexpectedly."


class Host:
    """What torch 2.10 to 2.12 keeps on the host about captures, and how a failed one leaves it."""

    def __init__(self) -> None:
        self.current, self.capturing, self.failed = "default", False, False

    def graph(self) -> Graph:
        return Graph(self)

    def draw(self) -> None:
        """Do what every replay and every random number does with the generator."""
        if self.capturing:
            raise RuntimeError(UNEXPECTED)

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def capture(self, graph, pool, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"
        before, self.current, self.capturing, self.failed = self.current, stream, True, False
        try:
            yield
        finally:
            if self.failed:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture\nCUDA ...")
            self.capturing, self.current = False, before

    def forbidden(self) -> None:
        """Do what a stream that captures cannot do."""
        self.failed = True
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nSearch for ...")


class Graph:
    def __init__(self, host: Host) -> None:
        self.replay = host.draw

    def reset(self) -> None:
        """Free what the graph has."""


class Stream(str):
    device = torch.device("cpu")


@pytest.fixture
def host(monkeypatch) -> Host:
    host = Host()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", host.graph)
    monkeypatch.setattr(torch.cuda, "graph", host.capture)
    monkeypatch.setattr(torch.cuda, "stream", host.stream)
    return host


def test_a_failed_capture_leaves_the_generator_and_the_stream_as_they_were(host) -> None:
    graph = capture(lambda: None, Stream("side"))
    with pytest.raises(CaptureError, match=r"^CUDA error: operation not permitted when stream is capturing$"):
        capture(host.forbidden, Stream("side"))
    assert host.current == "default"
    graph.replay()
    capture(lambda: None, Stream("side")).replay()


def test_a_capture_that_fails_without_a_fault_of_the_stream_says_why(host) -> None:
    def full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried ...")

    with pytest.raises(CaptureError, match=r"^CUDA out of memory\.$"):
        capture(full, Stream("side"))
    assert host.current == "default"


def test_a_gpu_that_fails_altogether_raises_the_first_reason(host, monkeypatch) -> None:
    monkeypatch.setattr(torch.Tensor, "zero_", lambda tensor: host.forbidden())
    with pytest.raises(CaptureError, match="not permitted"):
        capture(host.forbidden, Stream("side"))
    assert host.current == "default"


@pytest.mark.cuda
def test_graphs_and_random_numbers_go_on_after_a_failed_capture_on_a_gpu() -> None:
    stream, drawn = torch.cuda.Stream(), torch.zeros(1000, device="cuda")
    torch.manual_seed(0)
    expected = [torch.rand(1000, device="cuda") for _ in range(4)]
    torch.manual_seed(0)
    graph = capture(lambda: drawn.uniform_(), stream)
    found = []
    for failing in (False, True):
        if failing:
            with pytest.raises(CaptureError):
                capture(lambda: drawn.cpu(), stream)
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
        graph.replay()
        found.append(drawn.clone())
        found.append(torch.rand(1000, device="cuda"))
    for number, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert torch.equal(one, other), number
