"""Runs the benchmark of the zipped loss, cell by cell."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from fastccsa import machine
from fastccsa.benchmarking.counting import peak_bytes
from fastccsa.benchmarking.results import FLOOR, OURS, RIVAL, CellResult, Measurement, Results
from fastccsa.benchmarking.timing import interleaved
from fastccsa.benchmarking.zipped import rivals as contestants
from fastccsa.benchmarking.zipped.cells import BACKWARD, Cell
from fastccsa.benchmarking.zipped.floors import BYTES, LARGEST_ARRAY, STREAMS, floors
from fastccsa.benchmarking.zipped.problem import Problem
from fastccsa.benchmarking.zipped.rivals import CannotExpress, LossFunction, Rival

__all__ = ["Settings", "run"]

USABLE_SHARE = 0.8  # of the memory that is available
MANY_PAIRS = 1024  # from here on one compiled graph may serve several N: what it costs a call no longer shows


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
    """

    device: str = "cpu"
    threads: int | None = None
    rounds: int = 30
    seconds: float = 8.0
    minutes: float | None = None
    machine: str | None = None
    rivals: tuple[str, ...] | None = None


def run(
    cells: Sequence[Cell],
    settings: Settings,
    command: str = "",
    after_cell: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Measure every cell.

    Args:
        cells: what to measure, in this order.
        settings: how.
        command: what was typed, for the record.
        after_cell: called with the results so far after each cell.
    """
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    device = torch.device(settings.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    results = Results(
        benchmark="zipped",
        machine=machine.describe(device, settings.machine),
        versions=machine.versions(),
        commit=machine.commit(),
        date=machine.now(),
        command=command,
        settings={
            "device": settings.device,
            "threads": torch.get_num_threads(),
            "rounds": settings.rounds,
            "seconds": settings.seconds,
            "minutes": settings.minutes,
            "rivals": None if settings.rivals is None else list(settings.rivals),
        },
    )
    bench = _Bench(settings, device, _sizes_that_share_a_graph(cells))
    for cell in cells:
        results.cells.append(bench.measure(cell))
        after_cell(results)
    return results


def _without_pairs(cell: Cell) -> Cell:
    return replace(cell.problem, pairs=0)


def _sizes_that_share_a_graph(cells: Sequence[Cell]) -> set[Cell]:
    """Where many N are measured that differ in nothing else, compiling for each would take longer than measuring."""
    large = {cell.problem for cell in cells if cell.pairs >= MANY_PAIRS}
    families = [_without_pairs(cell) for cell in large]
    return {family for family in families if families.count(family) > 1}


def _keep_the_faster_stream(rows: list[Measurement]) -> None:
    """A floor is what can be reached: the slower way to stream is none."""
    fastest, *slower = sorted((row for row in rows if row.contestant in STREAMS), key=lambda row: row.median)
    fastest.contestant, fastest.note = BYTES, STREAMS[fastest.contestant]
    for row in slower:
        rows.remove(row)


class _Bench:
    """What passes from cell to cell: the data of the last, and compiled functions for several N."""

    def __init__(self, settings: Settings, device: torch.device, shared: set[Cell]) -> None:
        self.settings = settings
        self.device = device
        self.shared = shared
        self.end = None if settings.minutes is None else time.monotonic() + 60 * settings.minutes
        self.scope: Cell | None = None  # what the compiled functions are for
        self.compiled: dict[str, LossFunction] = {}
        self.problem: tuple[Cell, Problem] | None = None

    def measure(self, cell: Cell) -> CellResult:
        rows = [Measurement(r.name, OURS if r is contestants.OURS else RIVAL) for r in contestants.RIVALS]
        result = CellResult(vars(cell) | {"title": cell.title}, cell.bytes_moved, cell.input_bytes, rows)
        reason = self._reason_not_to(cell)
        if reason is not None:
            for row in rows:
                row.not_measured = reason
            return result
        problem = self._problem_of(cell)
        torch.set_grad_enabled(cell.mode == BACKWARD)
        try:
            calls = {}
            for rival, row in zip(contestants.RIVALS, rows, strict=True):
                call = self._prepare(rival, row, problem, cell)
                if call is not None:
                    calls[rival.name] = call
            for name, call in floors(problem, cell).items():
                rows.append(Measurement(name, FLOOR))
                calls[name] = call
                call()
            times = interleaved(calls, self.settings.rounds, self.settings.seconds, self._synchronize)
        finally:
            torch.set_grad_enabled(True)
        for row in rows:
            if row.contestant in times:
                row.seconds, row.calls = times[row.contestant].seconds, times[row.contestant].calls
        _keep_the_faster_stream(rows)
        return result

    def _reason_not_to(self, cell: Cell) -> str | None:
        if self.end is not None and time.monotonic() > self.end:
            return f"the {self.settings.minutes:g} minutes were over"
        if self.problem is None or self.problem[0] != cell.problem:
            self.problem = None  # its memory counts as available
        held = 0 if self.problem else cell.input_bytes
        return self._too_large(held + contestants.OURS.held(cell) + min(cell.bytes_moved, 7 * LARGEST_ARRAY))

    def _too_large(self, bytes_wanted: float) -> str | None:
        usable = USABLE_SHARE * machine.available_bytes(self.device)
        if bytes_wanted <= usable:
            return None
        return f"does not fit: needs about {bytes_wanted / 2**30:.1f} GiB of {usable / 2**30:.1f} GiB usable"

    def _problem_of(self, cell: Cell) -> Problem:
        if self.problem is None:
            self.problem = cell.problem, Problem.of(cell, self.device)
            if self._shares_a_graph(cell):
                for tensor in (*self.problem[1].inputs, *self.problem[1].targets):
                    torch._dynamo.mark_dynamic(tensor, 0)
        return self.problem[1]

    def _prepare(self, rival: Rival, row: Measurement, problem: Problem, cell: Cell) -> Callable[[], object] | None:
        """Build a rival, check its results and its memory; None where it cannot be measured, and the row says why."""
        if not self._wanted(rival):
            row.not_measured = "not asked for"
            return None
        try:
            function = self._built(rival, problem, cell)
            row.not_measured = self._too_large(rival.held(cell))
            if row.not_measured is not None:
                return None
            call = contestants.call_of(function.call, problem, cell)
            loss = function.call(*problem.arguments)
            row.loss_error = problem.loss_error(loss)
            if cell.mode == BACKWARD:
                row.gradient_error = problem.gradient_error(torch.autograd.grad(loss, problem.inputs))
            row.peak_bytes = None if function.keeps_memory else peak_bytes(call, self.device)
            row.note = function.note
        except CannotExpress as error:
            row.not_measured = str(error)
            return None
        except Exception as error:  # a rival that fails must not end the run; its row says that it failed
            row.not_measured = f"failed: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
            return None
        return call

    def _built(self, rival: Rival, problem: Problem, cell: Cell) -> LossFunction:
        """A rival's loss function; what was compiled is kept as long as it serves."""
        if not rival.compiled:
            return rival.build(problem, cell)
        scope = _without_pairs(cell) if self._shares_a_graph(cell) else cell.problem
        if scope != self.scope:
            torch.compiler.reset()  # else torch gives up after eight sizes
            self.scope, self.compiled = scope, {}
        if rival.name not in self.compiled:
            self.compiled[rival.name] = rival.build(problem, cell)
        function = self.compiled[rival.name]
        return replace(function, note=f"{function.note}; any N") if self._shares_a_graph(cell) else function

    def _wanted(self, rival: Rival) -> bool:
        return rival is contestants.OURS or self.settings.rivals is None or rival.name in self.settings.rivals

    def _shares_a_graph(self, cell: Cell) -> bool:
        return _without_pairs(cell) in self.shared and cell.pairs >= MANY_PAIRS

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
