"""Runs the benchmark of the zipped loss, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from fastccsa.benchmarking.contestants import LossFunction, Rival
from fastccsa.benchmarking.results import FLOOR, OURS, RIVAL, CellResult, Measurement, Results
from fastccsa.benchmarking.session import Session, Settings
from fastccsa.benchmarking.zipped import rivals as contestants
from fastccsa.benchmarking.zipped.cells import BACKWARD, Cell
from fastccsa.benchmarking.zipped.floors import BYTES, LARGEST_ARRAY, STREAMS, floors
from fastccsa.benchmarking.zipped.problem import Problem

__all__ = ["Settings", "run"]

MANY_PAIRS = 1024  # from here on one compiled graph may serve several N: what it costs a call no longer shows


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
    bench = _Bench(settings, _sizes_that_share_a_graph(cells))
    results = bench.session.results("zipped", command)
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

    def __init__(self, settings: Settings, shared: set[Cell]) -> None:
        self.session = Session(settings)
        self.shared = shared
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
            self.session.time(rows, calls)
        finally:
            torch.set_grad_enabled(True)
        _keep_the_faster_stream(rows)
        return result

    def _reason_not_to(self, cell: Cell) -> str | None:
        if over := self.session.over():
            return over
        if self.problem is None or self.problem[0] != cell.problem:
            self.problem = None  # its memory counts as available
        held = 0 if self.problem else cell.input_bytes
        return self.session.too_large(held + contestants.OURS.held(cell) + min(cell.bytes_moved, 7 * LARGEST_ARRAY))

    def _problem_of(self, cell: Cell) -> Problem:
        if self.problem is None:
            self.problem = cell.problem, Problem.of(cell, self.session.device)
            if self._shares_a_graph(cell):
                for tensor in (*self.problem[1].inputs, *self.problem[1].targets):
                    torch._dynamo.mark_dynamic(tensor, 0)
        return self.problem[1]

    def _prepare(self, rival: Rival, row: Measurement, problem: Problem, cell: Cell) -> Callable[[], object] | None:
        return self.session.try_out(
            row,
            rival.held(cell),
            problem,
            lambda: self._built(rival, problem, cell),
            lambda loss: contestants.call_of(loss, problem, cell),
        )

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

    def _shares_a_graph(self, cell: Cell) -> bool:
        return _without_pairs(cell) in self.shared and cell.pairs >= MANY_PAIRS
