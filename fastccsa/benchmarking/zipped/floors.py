"""What no implementation gets below, measured in the same rounds as the implementations.

- The bytes: torch streams as many bytes as the loss has to read and write, in as many passes, through memory that is
  already there. On a CPU by a copy and by an addition of two arrays, whichever is faster there; on a GPU by a copy.
- The call: a `torch.autograd.Function` that does nothing, forward and backward, through the same inputs.
- The launches (CUDA): as many empty kernels as there are passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastccsa.benchmarking.zipped.cells import BACKWARD, Cell
from fastccsa.benchmarking.zipped.problem import Problem

__all__ = ["BYTES", "CALL", "LARGEST_ARRAY", "LAUNCHES", "STREAMS", "floors"]

BYTES, CALL, LAUNCHES = "floor: bytes streamed", "floor: call that does nothing", "floor: launches"
COPIED, ADDED = f"{BYTES} by a copy", f"{BYTES} by an addition"
LARGEST_ARRAY = 1 << 28  # bytes
STREAMS = {COPIED: "by a copy", ADDED: "by an addition"}


def _arrays(cell: Cell, device: torch.device, arrays: int) -> tuple[list[Tensor], int]:
    """Arrays, and how often a pass goes through `arrays` of them, to move as many bytes as the cell does.

    Two passes write to two places, as the loss does, so that what fits into the caches there fits here. Arrays beyond
    any cache need not be larger.
    """
    bytes_an_array = cell.bytes_moved / (cell.passes * arrays)
    repeats = math.ceil(bytes_an_array / LARGEST_ARRAY)
    length = int(bytes_an_array / repeats) // 4
    # Ones, not zeros: memory that was never written to is not there yet.
    return [torch.ones(length, device=device) for _ in range(arrays - 1 + cell.passes)], repeats


def _copies(cell: Cell, device: torch.device) -> Callable[[], object]:
    (source, *targets), repeats = _arrays(cell, device, 2)

    def stream() -> None:
        for target in targets:
            for _ in range(repeats):
                target.copy_(source)

    return stream


def _additions(cell: Cell, device: torch.device) -> Callable[[], object]:
    (a, b, *sums), repeats = _arrays(cell, device, 3)

    def stream() -> None:
        for c in sums:
            for _ in range(repeats):
                torch.add(a, b, out=c)

    return stream


class _Nothing(torch.autograd.Function):
    """Four inputs, a scalar, four gradients that are there already."""

    @staticmethod
    def forward(ctx: Any, gradients: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return inputs[0].new_empty(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, *ctx.gradients


def _nothing(problem: Problem, cell: Cell) -> Callable[[], object]:
    inputs = problem.inputs
    if cell.mode != BACKWARD:
        return lambda: _Nothing.apply((), *inputs)
    gradients = tuple(x.detach() for x in inputs)
    return lambda: torch.autograd.grad(_Nothing.apply(gradients, *inputs), inputs)


def _launches(cell: Cell) -> Callable[[], object]:
    def launch() -> None:
        for _ in range(cell.passes):
            torch.cuda._sleep(0)  # a kernel that waits for 0 cycles

    return launch


def floors(problem: Problem, cell: Cell) -> dict[str, Callable[[], object]]:
    """The floors of a cell by name, each as a call that takes as long."""
    device = problem.targets[0].device
    calls = {COPIED: _copies(cell, device)}
    if device.type == "cpu":
        calls[ADDED] = _additions(cell, device)
    else:
        calls[LAUNCHES] = _launches(cell)
    calls[CALL] = _nothing(problem, cell)
    return calls
