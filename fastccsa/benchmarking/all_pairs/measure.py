"""Runs the benchmark of the loss over all pairs, cell by cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import torch
from torch import Tensor

from fastccsa.benchmarking.all_pairs import rivals as contestants
from fastccsa.benchmarking.all_pairs.cells import Cell
from fastccsa.benchmarking.all_pairs.problem import Problem
from fastccsa.benchmarking.contestants import Rival
from fastccsa.benchmarking.results import FLOOR, OURS, RIVAL, CellResult, Measurement, Results
from fastccsa.benchmarking.session import Judge, Session, Settings

__all__ = ["Settings", "rows_of", "run", "try_out"]

PROBE = 1024  # rows and columns of the product that tells how fast this machine multiplies


def run(
    cells: Sequence[Cell],
    settings: Settings,
    command: str = "",
    after_cell: Callable[[Results], None] = lambda results: None,
    longest: float = 60.0,
) -> Results:
    """Measure every cell.

    Args:
        cells: what to measure, in this order.
        settings: how.
        command: what was typed, for the record.
        after_cell: called with the results so far after each cell.
        longest: seconds. Cells whose dense products alone would take longer are not measured.
    """
    session = Session(settings)
    results = session.results("all-pairs", command)
    results.settings["longest"] = longest
    rate = _operations_a_second(session.device)
    for cell in cells:
        results.cells.append(_measure(cell, session, cell.operations / rate, longest))
        after_cell(results)
    return results


def rows_of() -> list[Measurement]:
    """A row for each contestant; all precisions of fastccsa but the first count as its rivals."""
    return [Measurement(r.name, OURS if r is contestants.OURS else RIVAL) for r in contestants.RIVALS]


def _operations_a_second(device: torch.device) -> float:
    a = torch.ones(PROBE, PROBE, device=device)
    seconds = []
    for _ in range(3):
        start = perf_counter()
        (a @ a).sum().item()  # waits for the device
        seconds.append(perf_counter() - start)
    return 2 * PROBE**3 / min(seconds)


def _measure(cell: Cell, session: Session, products_seconds: float, longest: float) -> CellResult:
    rows = rows_of()
    result = CellResult(vars(cell) | {"title": cell.title}, cell.moved_bytes, cell.input_bytes, rows)
    reason = session.over() or session.too_large(2 * cell.input_bytes + contestants.OURS.held(cell))
    if products_seconds > longest:
        number, about = "two" if cell.memory else "three", f"{products_seconds:.0f} s"
        reason = f"{number} products would take about {about}, more than the {longest:g} s of --longest"
    if reason is not None:
        for row in rows:
            row.not_measured = reason
        return result
    torch.compiler.reset()  # else torch gives up after eight sizes
    problem = Problem.of(cell, session.device)
    calls = {}
    for rival, row in zip(contestants.RIVALS, rows, strict=True):
        call = try_out(rival, row, problem, cell, session)
        if call is not None:
            calls[rival.name] = call
    if session.too_large(cell.matrix_bytes + cell.gradient_bytes) is None:
        for name, call in contestants.floors(problem, cell).items():
            rows.append(Measurement(name, FLOOR))
            calls[name] = call
            call()
    session.time(rows, calls)
    return result


def try_out(
    rival: Rival, row: Measurement, problem: Judge, cell: Cell, session: Session
) -> Callable[[], object] | None:
    """Note a rival's errors and memory; what is timed, or None where it cannot be measured."""

    def call_of(loss: Callable[..., Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(*problem.arguments), problem.inputs)

    return session.try_out(row, rival.held(cell), problem, lambda: rival.build(problem, cell), call_of)
