"""What benchmarks share: how they are told to measure, budgets of time and memory, and how a rival is tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastccsa.benchmarking.contestants import CannotExpress, LossFunction
from fastccsa.benchmarking.counting import peak_bytes
from fastccsa.benchmarking.results import OURS, Measurement, Results
from fastccsa.benchmarking.timing import interleaved
from fastccsa.system import machine

__all__ = ["Judge", "Session", "Settings"]

USABLE_SHARE = 0.8  # of the memory that is available


@dataclass(frozen=True)
class Settings:
    """How it is measured.

    Attributes:
        device: a torch device.
        threads: of torch on the CPU; None leaves torch's choice.
        rounds: at most.
        seconds: budget for the rounds of one cell.
        minutes: budget for everything; cells not begun by then are not measured. None is no limit.
        machine: what to call the machine; None is the name it has in its network.
        rivals: names of those to measure besides fastccsa; None is all.
        memory_limit: GiB that a contestant may hold; None is four fifths of what is available.
    """

    device: str = "cpu"
    threads: int | None = None
    rounds: int = 30
    seconds: float = 8.0
    minutes: float | None = None
    machine: str | None = None
    rivals: tuple[str, ...] | None = None
    memory_limit: float | None = None


class Judge(Protocol):
    """The data of a cell: what a loss function is called with, and how wrong its results are."""

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of a loss function, in order."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What gradients flow to."""

    def loss_error(self, loss: Tensor) -> float | None:
        """Relative error of a loss against float64; None where that was not computed."""

    def gradient_error(self, gradients: tuple[Tensor, ...]) -> float:
        """Largest error of a gradient, relative to the largest entry of that gradient."""


class Session:
    """One run of a benchmark: its device, and what is left of its budgets."""

    def __init__(self, settings: Settings) -> None:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.settings = settings
        self.device = torch.device(settings.device)
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)
        self.end = None if settings.minutes is None else time.monotonic() + 60 * settings.minutes

    def results(self, benchmark: str, command: str) -> Results:
        """Results without cells yet."""
        told = asdict(self.settings)
        told.pop("machine")
        rivals = self.settings.rivals
        return Results(
            benchmark=benchmark,
            machine=machine.describe(self.device, self.settings.machine),
            versions=machine.versions(),
            commit=machine.commit(),
            date=machine.now(),
            command=command,
            settings=told | {"threads": torch.get_num_threads(), "rivals": None if rivals is None else list(rivals)},
        )

    def over(self) -> str | None:
        """Why no cell may begin any more, if so."""
        if self.end is not None and time.monotonic() > self.end:
            return f"the {self.settings.minutes:g} minutes were over"
        return None

    def too_large(self, bytes_wanted: float) -> str | None:
        """Why so much memory may not be asked for, if so."""
        usable = USABLE_SHARE * machine.available_bytes(self.device)
        if self.settings.memory_limit is not None:
            usable = min(usable, self.settings.memory_limit * 2**30)
        if bytes_wanted <= usable:
            return None
        return f"does not fit: needs about {bytes_wanted / 2**30:.1f} GiB of {usable / 2**30:.1f} GiB usable"

    def try_out(
        self,
        row: Measurement,
        held: float,
        problem: Judge,
        build: Callable[[], LossFunction],
        call_of: Callable[[Callable[..., Tensor]], Callable[[], object]],
    ) -> Callable[[], object] | None:
        """Build a contestant, note its errors and its memory; None where it cannot be measured, and `row` says why.

        Args:
            row: of the contestant.
            held: bytes that a call holds, estimated from above.
            problem: what it is called with.
            build: makes its loss function.
            call_of: makes what is timed of the loss function.
        """
        if not self._wanted(row):
            row.not_measured = "not asked for"
            return None
        try:
            function = build()
            row.not_measured = self.too_large(held)
            if row.not_measured is not None:
                return None
            call = call_of(function.call)
            self.judge(row, function, problem)
            row.peak_bytes = None if function.keeps_memory else peak_bytes(call, self.device)
        except CannotExpress as error:
            row.not_measured = str(error)
            return None
        except Exception as error:  # a rival that fails must not end the run; its row says that it failed
            row.not_measured = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
            return None
        return call

    def judge(self, row: Measurement, function: LossFunction, problem: Judge) -> None:
        """Note how wrong the results of a loss function are."""
        loss = function.call(*problem.arguments)
        row.loss_error = problem.loss_error(loss)
        if torch.is_grad_enabled():
            row.gradient_error = problem.gradient_error(torch.autograd.grad(loss, problem.inputs))
        row.note = function.note

    def time(self, rows: list[Measurement], calls: Mapping[str, Callable[[], object]]) -> None:
        """Time the calls in turns, and note it in the rows of these names."""
        times = interleaved(calls, self.settings.rounds, self.settings.seconds, self._synchronize)
        for row in rows:
            if row.contestant in times:
                row.seconds, row.calls = times[row.contestant].seconds, times[row.contestant].calls

    def _wanted(self, row: Measurement) -> bool:
        return row.kind == OURS or self.settings.rivals is None or row.contestant in self.settings.rivals

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
