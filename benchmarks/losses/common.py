"""Shared code of the benchmarks of both losses: how errors are computed, and how a cell is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

import click
import torch
from torch import Tensor

from benchmarks.harness.benchmark import Benchmark, CannotRun
from benchmarks.harness.graphs import captured
from benchmarks.harness.memory import cpu_cache, peak_bytes
from benchmarks.harness.results import FLOOR, RIVAL, Row
from benchmarks.harness.turns import Around, Call, Turn

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}  # per element, by the name of the dtype
LABEL_BYTES = 8  # int64

Loss = Callable[..., Tensor]


class LossFunction(NamedTuple):
    """A loss function as it is measured."""

    call: Loss
    note: str = ""  # how it was made
    keeps_memory: bool = False  # it allocates only once, so the memory of a call is meaningless
    captured: bool = False  # the whole call is captured as a CUDA graph, and replays are timed
    around: Around = nullcontext  # makes the context that its turns run in, from the timed call


class Contestant(NamedTuple):
    """A way to compute the loss."""

    name: str
    build: Callable[[Any, Any], LossFunction]  # from a problem and its cell
    held: Callable[[Any], float]  # upper estimate of the bytes beyond the inputs in a cell; not run if they do not fit
    compiled: bool = False  # at its first call; the loss function also serves other tensors
    kind: str = RIVAL


class Floor(NamedTuple):
    """A call that does only the unavoidable work; of several with the same name, the fastest counts."""

    name: str
    note: str
    call: Call


class Expected(NamedTuple):
    """The expected results, in float64."""

    loss: float | None  # None if computing it would take too long
    gradients: Sequence[tuple[Tensor | slice, Tensor]]  # for each input: indices of some rows, and their gradients


@dataclass
class Problem:
    """The data of a cell, on which the errors of a loss function are computed.

    ``arguments`` are the arguments of a loss function, and gradients flow to ``inputs``. If all entries of a gradient
    are 0, errors are relative to ``smallest``.
    """

    inputs: tuple[Tensor, ...]
    arguments: tuple[Any, ...]
    expect: Callable[[], Expected]
    smallest: float = 0.0

    @cached_property
    def expected(self) -> Expected:
        with torch.enable_grad():
            return self.expect()

    def loss_error(self, loss: Tensor) -> float | None:
        """Return the relative error of a loss; None if the expected loss is unknown."""
        expected = self.expected.loss
        return None if expected is None else abs(loss.item() - expected) / abs(expected)

    def gradient_error(self, gradients: Sequence[Tensor]) -> float:
        """Return the largest error of a gradient relative to its largest entry; NaN if there is a NaN."""
        errors = [
            (got[rows].double() - true).abs().max() / (true.abs().max().item() or self.smallest)
            for got, (rows, true) in zip(gradients, self.expected.gradients, strict=True)
        ]
        return torch.stack(errors).max().item()


class LossBenchmark(Benchmark):
    """Measures the contestants of a loss, fastccsa first; ``timed`` is False if only errors are measured."""

    contestants: tuple[Contestant, ...]
    floor_names: tuple[str, ...]
    timed = True
    make_problem: Callable[[Any], Problem]  # the data of a cell
    needs: Callable[[Any], float]  # bytes beyond the inputs that a cell needs at least
    floors: Callable[[Problem, Any], list[Floor]]
    _problem: tuple[Any, Problem] | None = None
    _compiled: tuple[Any, dict[str, LossFunction]] = None, {}  # their scope, and the functions by name

    def names(self) -> list[str]:
        """List fastccsa, the chosen rivals (by default all), and the floors."""
        ours, *others = (one.name for one in self.contestants)
        for name in self.options.rival:
            if name not in others:
                known = ", ".join(map(repr, others))
                raise click.BadParameter(f"{name!r} is not one of {known}", param_hint="--rival")
        chosen = [name for name in others if name in (self.options.rival or others)]
        return [ours, *chosen, *(self.floor_names if self.timed else ())]

    def measure(self, cell: Any, names: Sequence[str]) -> list[Row]:
        """Measure these contestants."""
        chosen = [one for one in self.contestants if one.name in names]
        figures = {"bytes_moved": cell.bytes_moved, "input_bytes": cell.input_bytes}
        rows = [Row(one.name, one.kind, extra=figures) for one in chosen]
        if obstacle := self.over() or self.obstacle(cell):
            return [replace(row, not_measured=obstacle) for row in rows]
        self._problem = self._problem or (self.data(cell), self.make_problem(cell))
        problem = self._problem[1]
        with torch.set_grad_enabled(cell.backward), cpu_cache(0):
            turns = [(row, self._turn(one, row, problem, cell)) for one, row in zip(chosen, rows, strict=True)]
            for floor in self.floors(problem, cell) if self.timed else []:
                if floor.name in names:
                    turns.append((Row(floor.name, FLOOR, note=floor.note, extra=figures), self.calls(floor.call)))
            self.race(turns if self.timed else [])
        best: dict[str, Row] = {}
        for row, _ in turns:  # of two floors with one name, only the faster is a lower bound
            if row.contestant not in best or row.median < best[row.contestant].median:
                best[row.contestant] = row
        return list(best.values())

    def _turn(self, one: Contestant, row: Row, problem: Problem, cell: Any) -> Turn | None:
        """Compute a contestant's errors and memory, and make its turn."""

        def make() -> Turn | None:
            function = self.build(one, problem, cell)
            shared = one.compiled and self.scope(cell) != self.data(cell)
            row.note = f"{function.note}; any N" if shared else function.note
            if obstacle := self.too_large(one.held(cell)):
                raise CannotRun(obstacle)
            call = call_of(function.call, problem, cell)
            loss = function.call(*problem.arguments)
            row.loss_error = problem.loss_error(loss)
            if cell.backward:
                row.gradient_error = problem.gradient_error(torch.autograd.grad(loss, problem.inputs))
            row.peak_bytes = None if function.keeps_memory else peak_bytes(call, self.device)
            call = captured(call) if function.captured and self.timed else call
            return self.calls(call, around=function.around) if self.timed else None

        return self.try_out(row, make)

    def build(self, one: Contestant, problem: Problem, cell: Any) -> LossFunction:
        """Return a contestant's loss function; a compiled one is kept for all cells of its scope."""
        if not one.compiled:
            return one.build(problem, cell)
        if self.scope(cell) != self._compiled[0]:
            torch.compiler.reset()  # otherwise torch stops compiling after eight sizes
            self._compiled = self.scope(cell), {}
        functions = self._compiled[1]
        if one.name not in functions:
            functions[one.name] = one.build(problem, cell)
        return functions[one.name]

    def obstacle(self, cell: Any) -> str | None:
        """Return why a cell cannot be measured; None if it can."""
        if self._problem is not None and self._problem[0] != self.data(cell):
            self._problem = None  # frees its memory, which then counts as available
        return self.too_large((0 if self._problem else cell.input_bytes) + self.needs(cell))

    def data(self, cell: Any) -> Any:
        """Return a key that is equal for cells with the same problem."""
        return cell

    def scope(self, cell: Any) -> Any:
        """Return a key that is equal for cells that share compiled functions."""
        return self.data(cell)


def call_of(loss: Loss, problem: Problem, cell: Any) -> Call:
    """Make the call that is timed; if it computes no gradients, call it with gradients disabled."""
    arguments, inputs = problem.arguments, problem.inputs
    if cell.backward:
        return lambda: torch.autograd.grad(loss(*arguments), inputs)
    return lambda: loss(*arguments)


def plain(loss: Loss, note: str = "") -> Callable[[Any, Any], LossFunction]:
    """Return a builder of a loss function that is the same for every problem."""
    return lambda problem, cell: LossFunction(loss, note)


def compiled(loss: Loss, note: str, **options: Any) -> Callable[[Any, Any], LossFunction]:
    """Return a builder of a compiled loss function; sizes are fixed, except those that tensors mark as dynamic."""
    return lambda problem, cell: LossFunction(
        torch.compile(loss, fullgraph=True, dynamic=False, **options), note, "reduce-overhead" in options.values()
    )


def sums(of: Tensor) -> torch.dtype:
    """Return the dtype in which sums over a tensor are kept."""
    return torch.float64 if of.dtype == torch.float64 else torch.float32


@cache
def squared_contrastive_loss(margin: float) -> Any:
    """Make pytorch-metric-learning's sum of ``d^2`` over same-class pairs and ``max(0, margin - d)^2`` over others."""
    try:
        from pytorch_metric_learning.distances import LpDistance
        from pytorch_metric_learning.losses import ContrastiveLoss
        from pytorch_metric_learning.reducers import SumReducer
    except ImportError as error:
        raise CannotRun("not installed: pip install pytorch-metric-learning") from error

    class SquaredContrastiveLoss(ContrastiveLoss):  # type: ignore[misc]
        """ContrastiveLoss with squared terms; the original is linear in the distance."""

        def pos_calc(self, distance: Tensor, margin: float) -> Tensor:
            return super().pos_calc(distance, margin).square()

        def neg_calc(self, distance: Tensor, margin: float) -> Tensor:
            return super().neg_calc(distance, margin).square()

    options: dict[str, Any] = {"distance": LpDistance(normalize_embeddings=False), "reducer": SumReducer()}
    return SquaredContrastiveLoss(pos_margin=0, neg_margin=margin, **options)
