"""The zipped loss: the whole loss of N pairs, forward only or with its gradients."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click
import torch
from torch import Tensor

from benchmarks.losses.common import BYTES, LABEL_BYTES, Expected, Floor, LossBenchmark, Problem
from benchmarks.losses.zipped_contestants import CONTESTANTS, rows_of
from fastccsa import reference

FORWARD, BACKWARD = "forward", "forward+backward"
MARGIN, ALPHA = 50.0, 0.5
MATCHES = 0.25  # share of pairs with equal labels, as the sampler draws them
CHUNK_BYTES = 1 << 26  # of features in float64 at a time
GRADIENT_ROWS = 16384
LARGEST_ARRAY = 1 << 28  # bytes that a floor streams at a time: beyond any cache
MANY_PAIRS = 1024  # from this N on, one compiled graph may serve several N, because its cost per call is negligible
STREAM, CALL, LAUNCHES = "floor: bytes streamed", "floor: call that does nothing", "floor: launches"


@dataclass(frozen=True)
class Cell:
    """One set of sizes."""

    pairs: int  # N
    width: int = 512  # D, columns of the features
    classes: int = 7  # C, columns of the logits
    dtype: str = "float32"  # of logits and features
    mode: str = BACKWARD  # forward only, without gradients; or forward and the gradients of all four inputs
    weighted: bool = True  # with both class weights and the pair weights, or without any

    @property
    def title(self) -> str:
        sizes = f"N={self.pairs} D={self.width} C={self.classes}"
        return f"{sizes} {self.dtype}, {self.mode}{'' if self.weighted else ', no weights'}"

    @property
    def backward(self) -> bool:
        return self.mode == BACKWARD

    @property
    def gradient_bytes(self) -> int:
        """Size of the gradients of both logits and both features, which is also the size of these inputs."""
        return 2 * self.pairs * (self.classes + self.width) * BYTES[self.dtype]

    @property
    def input_bytes(self) -> int:
        """Size of the logits, features and labels of both sides."""
        return self.gradient_bytes + 2 * self.pairs * LABEL_BYTES

    @property
    def passes(self) -> int:
        """Number of passes over the data: autograd calls forward and backward separately, and each reads it."""
        return 2 if self.backward else 1

    @property
    def bytes_moved(self) -> int:
        """Bytes of the inputs, read in each pass, and of the gradients, written in the second."""
        return self.passes * self.input_bytes + (self.gradient_bytes if self.backward else 0)


def product(*sizes: Sequence[Any], weighted: bool = True) -> list[Cell]:
    """Combine all N, D, C, dtypes and modes; cells on the same data come together, then those that differ only in N."""
    pairs, widths, classes, dtypes, modes = sizes
    combinations = itertools.product(classes, widths, dtypes, pairs, modes)
    return [Cell(n, d, c, dtype, mode, weighted) for c, d, dtype, n, mode in combinations]


# About a minute on two cores: a small batch, a large one, and a job without weights, for other libraries.
QUICK = [Cell(32), Cell(65536), Cell(32, weighted=False)]
# All sizes, the most important first, so that an unfinished sweep is still useful.
SWEEP = product(
    (32, 256, 4096, 65536, 262144), (512, 128, 2048), (7, 1000), ("float32", "bfloat16"), (BACKWARD, FORWARD)
)


def make_problem(cell: Cell, device: torch.device | str = "cpu") -> Problem:
    """Draw random data, always the same for a cell; about half of the distances are within the margin."""
    random = torch.Generator(device).manual_seed(0)
    dtype = getattr(torch, cell.dtype)
    acc = torch.float64 if dtype == torch.float64 else torch.float32

    def normal(columns: int, scale: float) -> Tensor:
        values = torch.randn(cell.pairs, columns, generator=random, dtype=dtype, device=device)
        return values.mul_(scale).requires_grad_()

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random, dtype=acc, device=device)

    spread = MARGIN / math.sqrt(2 * cell.width)
    inputs = (*(normal(cell.classes, 3.0) for _ in "12"), *(normal(cell.width, spread) for _ in "12"))
    target1, other = torch.randint(cell.classes, (2, cell.pairs), generator=random, device=device)
    target2 = torch.where(uniform(cell.pairs) < MATCHES, target1, other)
    shapes = ((cell.classes,), (cell.classes,), (cell.classes, cell.classes))
    weights = [0.1 + uniform(*shape) if cell.weighted else None for shape in shapes]
    arguments = (*inputs, target1, target2, *weights, MARGIN, ALPHA)
    return Problem(inputs, arguments, lambda: expect(arguments))


def expect(arguments: tuple[Any, ...]) -> Expected:
    """Compute the loss of all pairs, and the gradients of at most `GRADIENT_ROWS` of them, evenly spread."""
    pairs, width = len(arguments[4]), arguments[0].shape[1] + arguments[2].shape[1]
    chunk, total = max(1, CHUNK_BYTES // (8 * width)), 0.0
    for start in range(0, pairs, chunk):
        with torch.no_grad():
            part = rows_of(arguments, slice(start, start + chunk), torch.float64)
            total += reference.weighted_ccsa_loss(*part, reduction="sum").item()
    # A pair's gradient depends on the others only through the mean's divisor.
    which = torch.arange(0, pairs, math.ceil(pairs / GRADIENT_ROWS), device=arguments[4].device)
    some = rows_of(arguments, which, torch.float64)
    loss = reference.weighted_ccsa_loss(*some, reduction="sum") / pairs
    return Expected(total / pairs, [(which, gradient) for gradient in torch.autograd.grad(loss, some[:4])])


class Benchmark(LossBenchmark):
    """Measures the zipped loss.

    Several cells that differ only in a large N share one compiled graph, because compiling for each of them would take
    longer than measuring.
    """

    contestants = CONTESTANTS

    @property
    def floor_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return (STREAM, CALL) if self.device.type == "cpu" else (STREAM, CALL, LAUNCHES)

    def cells(self) -> list[Cell]:
        o = self.options
        sizes = (o.pairs, o.width, o.classes, o.dtype, o.mode)
        chosen = any(sizes) or o.unweighted
        if o.full and chosen:
            raise click.UsageError(
                "--full measures every size; omit --pairs, --width, --classes, --dtype, --mode, --unweighted"
            )
        if not chosen:
            return SWEEP if o.full else QUICK
        usual: tuple[Any, ...] = ((32, 65536), (512,), (7,), ("float32",), (BACKWARD,))
        return product(
            *(given or default for given, default in zip(sizes, usual, strict=True)), weighted=not o.unweighted
        )

    def data(self, cell: Cell) -> Cell:
        """Return the cell without its mode, because both modes have the same problem."""
        return replace(cell, mode=BACKWARD)

    def scope(self, cell: Cell) -> Cell:
        """Return the cell without its mode, and without N if one graph serves several."""
        family = replace(self.data(cell), pairs=0)
        large = {self.data(other) for other in self.cells() if other.pairs >= MANY_PAIRS}
        shared = [replace(other, pairs=0) for other in large].count(family) > 1
        return family if shared and cell.pairs >= MANY_PAIRS else self.data(cell)

    def make_problem(self, cell: Cell) -> Problem:
        problem = make_problem(cell, self.device)
        if not self.scope(cell).pairs:
            for tensor in problem.arguments[:6]:
                torch._dynamo.mark_dynamic(tensor, 0)
        return problem

    def needs(self, cell: Cell) -> float:
        """Return the bytes of our own gradients and of the floors' arrays."""
        return self.contestants[0].held(cell) + min(cell.bytes_moved, 7 * LARGEST_ARRAY)

    def floors(self, problem: Problem, cell: Cell) -> list[Floor]:
        """Make the floors, below which no implementation can get.

        - The bytes: torch streams as many bytes as the loss has to read and write, in as many passes, through memory
          that is already allocated; by a copy, and on a CPU also by an addition of two arrays.
        - The call: a `torch.autograd.Function` that does nothing, forward and backward, through the same inputs.
        - The launches (CUDA): as many empty kernels as there are passes.
        """
        floors = [Floor(STREAM, "by a copy", stream(cell, self.device, 2)), Floor(CALL, "", nothing(problem, cell))]
        if self.device.type == "cpu":
            return [*floors, Floor(STREAM, "by an addition", stream(cell, self.device, 3))]
        # A kernel that waits for 0 cycles.
        return [*floors, Floor(LAUNCHES, "", lambda: [torch.cuda._sleep(0) for _ in range(cell.passes)])]


def stream(cell: Cell, device: torch.device | str, arrays: int) -> Callable[[], None]:
    """Move the cell's bytes by copying (2 arrays) or adding (3), in passes that write to different places.

    The loss also writes to different places, so both use the caches equally. Arrays need not be larger than any cache.
    """
    size = cell.bytes_moved / (cell.passes * arrays)
    repeats = math.ceil(size / LARGEST_ARRAY)
    # Ones, not zeros: the system allocates memory only when it is first written.
    every = [torch.ones(int(size / repeats) // 4, device=device) for _ in range(arrays - 1 + cell.passes)]
    (a, *b), targets = every[: arrays - 1], every[arrays - 1 :]

    def run() -> None:
        for target in targets:
            for _ in range(repeats):
                torch.add(a, b[0], out=target) if b else target.copy_(a)

    return run


class _Nothing(torch.autograd.Function):
    """A function of four inputs that returns an empty scalar, and gradients that exist already."""

    @staticmethod
    def forward(ctx: Any, gradients: tuple[Tensor, ...], *inputs: Tensor) -> Tensor:
        ctx.gradients = gradients
        return inputs[0].new_empty(())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, *ctx.gradients


def nothing(problem: Problem, cell: Cell) -> Callable[[], object]:
    """Make a call that goes through autograd but computes nothing."""
    inputs = problem.inputs
    if not cell.backward:
        return lambda: _Nothing.apply((), *inputs)
    gradients = tuple(x.detach() for x in inputs)
    return lambda: torch.autograd.grad(_Nothing.apply(gradients, *inputs), inputs)
