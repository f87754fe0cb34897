"""How far the host runs ahead of a GPU: enough to keep it busy, and so little that a run answers soon."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

import torch

# Long enough to bridge what the host does now and then, such as logging, or copying the state for a checkpoint.
AHEAD_SECONDS = 0.1
LEAST = 2  # pieces of work: one that the GPU does, and one that follows it without a gap


class _Queued(NamedTuple):
    """A piece of work: the time when the host queued it, its number of batches, and the event at its end."""

    since: float
    batches: int
    end: torch.cuda.Event


class Pace:
    """Keeps the host between `AHEAD_SECONDS` and twice that ahead of a GPU, or `LEAST` pieces of work.

    Without it, the host would queue a whole epoch of graphs and then wait for all of them: it would notice a signal
    only then, count the training of the GPU as the cost of a checkpoint, and show the speed of its queueing.

    It waits for the end of the work that it queued a few pieces ago. How many pieces that is follows from how long it
    took until that work was done.

    Args:
        device: the device of the work. On the CPU there is nothing to wait for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._queue: deque[_Queued] = deque()
        self._most = LEAST

    def queued(self, batches: int = 0) -> None:
        """Note that work on the current stream has been queued, which trains on ``batches`` batches."""
        if self._device.type == "cpu":
            return
        # The waiting thread sleeps, instead of keeping a processor busy that the decoder of images may need.
        end = torch.cuda.current_stream(self._device).record_event(torch.cuda.Event(blocking=True))
        self._queue.append(_Queued(time.perf_counter(), batches, end))
        while len(self._queue) > self._most:
            self._wait_for_first()

    def unfinished(self) -> int:
        """Return the number of batches that the GPU has not finished yet, without waiting."""
        while self._queue and self._queue[0].end.query():
            self._queue.popleft()
        return sum(work.batches for work in self._queue)

    def wait(self) -> None:
        """Wait until the GPU has finished everything that was noted."""
        if self._queue:
            self._queue[-1].end.synchronize()
            self._queue.clear()

    def _wait_for_first(self) -> None:
        first = self._queue.popleft()
        if first.end.query():
            return  # the GPU is the faster one
        first.end.synchronize()
        passed = time.perf_counter() - first.since
        if passed < AHEAD_SECONDS:
            self._most += 1
        elif passed > 2 * AHEAD_SECONDS:
            self._most = max(LEAST, self._most - 1)
