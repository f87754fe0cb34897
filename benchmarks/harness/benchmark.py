"""The base of all benchmarks: cells, contestants, and the measurement of a cell within budgets of time and memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.harness.results import Row
from benchmarks.harness.turns import Call, Calls, Turn, interleave
from fastccsa.system import machine
from fastccsa.system.devices import pick_device

USABLE_SHARE = 0.8  # of the memory that is available


class CannotRun(Exception):
    """Raised if a contestant cannot do this job here; the message says why."""


class Benchmark:
    """One run of a benchmark, with the options of its command.

    Subclasses define ``cells()``, which lists what to measure, each cell with a ``title`` and its parameters as fields;
    ``names()``, which lists the contestants; and ``measure(cell, names)``, which returns one row per contestant.
    """

    def __init__(self, options: SimpleNamespace) -> None:
        self.options = options
        self.device = pick_device(getattr(options, "device", "cpu"))
        minutes = getattr(options, "minutes", None)
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    def begin(self) -> None:
        """Select the device and the number of threads from the options."""
        if getattr(self.options, "threads", None):
            torch.set_num_threads(self.options.threads)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)

    def race(self, turns: Sequence[tuple[Row, Turn | None]], seconds: float | None = None) -> None:
        """Measure in turns, and put the times into the rows; a row without a turn is left unchanged."""
        running = [(row, turn) for row, turn in turns if turn is not None]
        budget = self.options.seconds if seconds is None else seconds
        times = interleave([turn for _, turn in running], self.options.rounds, budget)
        for (row, turn), taken in zip(running, times, strict=True):
            row.seconds, row.calls = taken, getattr(turn, "calls", row.calls)

    def calls(self, call: Call, **around: Any) -> Calls:
        """Make a turn of calls, after a first one, which may compile and is not timed."""
        call()
        return Calls(call, self.synchronize, **around)

    def synchronize(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def over(self) -> str | None:
        """Return why no more cells may begin; None if they may."""
        late = self.end is not None and time.monotonic() > self.end
        return f"the time budget of {self.options.minutes:g} minutes was used up" if late else None

    def too_large(self, size: float) -> str | None:
        """Return why this many bytes may not be allocated; None if they may."""
        usable = USABLE_SHARE * machine.available_bytes(self.device)
        if self.options.memory_limit is not None:
            usable = min(usable, self.options.memory_limit * 2**30)
        needed = f"does not fit: needs about {size / 2**30:.1f} GiB of {usable / 2**30:.1f} GiB usable"
        return needed if size > usable else None

    def try_out(self, row: Row, make: Callable[[], Turn | None]) -> Turn | None:
        """Make a contestant's turn; if that fails, return None, and put the reason into the row."""
        try:
            return make()
        except CannotRun as error:
            row.not_measured = str(error)
        except Exception as error:  # a rival that fails must not end the run; its row says that it failed
            row.not_measured = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        return None
