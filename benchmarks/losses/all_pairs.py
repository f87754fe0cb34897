"""The loss over all pairs of two sets of N rows, with its gradients, and its errors for small distances."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from types import SimpleNamespace

import click
import torch
from torch import Tensor

from benchmarks.losses.all_pairs_contestants import CONTESTANTS, MARGIN, dense_sum
from benchmarks.losses.common import BYTES, LABEL_BYTES, Expected, Floor, LossBenchmark, Problem
from fastccsa import reference
from fastccsa.collections.taxonomy import CLASSES, TABLE1

LOSS_PRODUCTS = 1e11  # above this, the loss is not computed in float64; gradients of some rows always are
GRADIENT_ROWS = 32
CHUNK_ENTRIES = 1 << 23  # of a float64 matrix at a time
PROBE = 1024  # rows and columns of the product that is timed to estimate others
LABELS = ("uniform", "table1")
PRODUCTS = {3: "three", 2: "two"}


@dataclass(frozen=True)
class Cell:
    """One set of sizes: forward and the gradients of both sides, or only of the first."""

    rows: int  # N on either side: N * N pairs
    width: int = 512  # D, columns of the features
    labels: str = "uniform"  # seven equally frequent classes; "table1": as frequent as in the paper's Table 1
    dtype: str = "float32"  # of the features
    memory: int = 0  # rows of the second side if these are past features without gradients; 0: N rows with gradients
    case: str = ""  # name of a case of small distances, for which only errors are measured
    backward = True

    @property
    def title(self) -> str:
        if self.case:
            return f"{self.case}; N={self.rows} D={self.width} {self.dtype}"
        against = f" against a memory of {self.memory}" if self.memory else ""
        return f"N={self.rows}{against} D={self.width} {self.dtype}, labels {self.labels}"

    @property
    def sides(self) -> tuple[int, int]:
        """Numbers of rows of the two sides."""
        return self.rows, self.memory or self.rows

    @property
    def input_bytes(self) -> int:
        """Size of the features and labels of both sides."""
        return sum(self.sides) * (self.width * BYTES[self.dtype] + LABEL_BYTES)

    @property
    def bytes_moved(self) -> int:
        """Bytes of the inputs, which are read, and of the gradients of both sides or the first, which are written."""
        return self.input_bytes + self.rows * self.width * BYTES[self.dtype] * (1 if self.memory else 2)

    @property
    def matrix_bytes(self) -> int:
        """Size of one matrix of all pairs, in the dtype that sums are kept in."""
        return math.prod(self.sides) * (8 if self.dtype == "float64" else 4)

    @property
    def products(self) -> int:
        """Number of dense products that the loss and its gradients take."""
        return 2 if self.memory else 3


def product(
    rows: Sequence[int], widths: Sequence[int], labels: Sequence[str], dtypes: Sequence[str], memory: int = 0
) -> list[Cell]:
    """Return a cell for every combination."""
    return [Cell(n, d, y, dtype, memory) for dtype, d, n, y in itertools.product(dtypes, widths, rows, labels)]


QUICK = product((4096,), (512,), LABELS, ("float32",))  # a minute or two on two cores
SWEEP = product((1024, 4096, 16384, 65536, 262144), (512, 128, 2048), LABELS, ("float32",))


def make_problem(cell: Cell, device: torch.device | str = "cpu") -> Problem:
    """Draw random data, always the same for a cell; the distances of all pairs are around the margin."""
    random = torch.Generator(device).manual_seed(0)
    counts = [sum(domain[name] for domain in TABLE1.values()) for name in CLASSES]
    frequency = torch.tensor(
        counts if cell.labels == "table1" else [1] * len(CLASSES), dtype=torch.float32, device=device
    )

    def features(rows: int) -> Tensor:
        values = torch.randn(rows, cell.width, generator=random, device=device)
        return values.mul_(MARGIN / math.sqrt(2 * cell.width)).to(getattr(torch, cell.dtype))

    z = [features(rows).requires_grad_(side == 0 or not cell.memory) for side, rows in enumerate(cell.sides)]
    y = [torch.multinomial(frequency, rows, replacement=True, generator=random) for rows in cell.sides]
    return Problem(tuple(side for side in z if side.requires_grad), (*z, *y), lambda: expect(z, y))


def expect(features: Sequence[Tensor], y: Sequence[Tensor]) -> Expected:
    """Compute the loss, unless that takes too long, and the gradients of some rows, evenly spread."""
    z, loss = [side.detach().double() for side in features], None
    pairs = len(z[0]) * len(z[1])
    if pairs * z[0].shape[1] <= LOSS_PRODUCTS:
        rows = max(1, CHUNK_ENTRIES // len(z[1]))
        parts = zip(z[0].split(rows), y[0].split(rows), strict=True)
        loss = sum(dense_sum(part, z[1], labels, y[1]).item() for part, labels in parts) / pairs
    gradients = []
    for side in (side for side in range(2) if features[side].requires_grad):
        which = torch.arange(0, len(z[side]), math.ceil(len(z[side]) / GRADIENT_ROWS), device=z[side].device)
        some = z[side][which].requires_grad_()
        total = dense_sum(some, z[1 - side], y[side][which], y[1 - side])
        gradients.append((which, torch.autograd.grad(total, some)[0] / pairs))
    return Expected(loss, gradients)


# ---- small distances: near pairs far from the origin, duplicates, and points in one place ----

HARD_ROWS, HARD_WIDTH, NORM = 256, 128, 1e3


def _directions(random: torch.Generator, norm: float) -> Tensor:
    z = torch.randn(HARD_ROWS, HARD_WIDTH, generator=random, dtype=torch.float64)
    return norm * z / z.norm(dim=1, keepdim=True)


def _near_one_point(random: torch.Generator, distance: float) -> tuple[Tensor, Tensor]:
    """Draw points that are all about ``distance`` from one point of norm 1e3."""
    place = _directions(random, NORM)[:1]
    return place + 0.7 * _directions(random, distance), place + 0.7 * _directions(random, distance)


def _near_neighbours(random: torch.Generator, distance: float) -> tuple[Tensor, Tensor]:
    """Draw points of norm 1e3 all around the origin, each with a near neighbour on the other side."""
    z = _directions(random, NORM)
    return z, z + _directions(random, distance)


CASES: dict[str, Callable[[torch.Generator], tuple[Tensor, Tensor]]] = {
    "norm 1e3, distances 10": lambda random: _near_one_point(random, 10.0),
    "norm 1e3, distances 1e-1": lambda random: _near_one_point(random, 1e-1),
    "norm 1e3, distances 1e-3": lambda random: _near_one_point(random, 1e-3),
    "norm 1e3, nearest neighbours at 1e-3": lambda random: _near_neighbours(random, 1e-3),
    "duplicates": lambda random: (_directions(random, MARGIN / 2),) * 2,  # among others within the margin
    "all distances 0": lambda random: (_directions(random, NORM)[:1].expand(HARD_ROWS, HARD_WIDTH),) * 2,
}


def make_hard_problem(cell: Cell, device: torch.device | str = "cpu") -> Problem:
    """Make a case in float32; the expected results are computed from differences in float64."""
    random = torch.Generator().manual_seed(0)
    z = tuple(side.float().contiguous().to(device).requires_grad_() for side in CASES[cell.case](random))
    y = [torch.randint(len(CLASSES), (cell.rows,), generator=random).to(device) for _ in z]

    def expect() -> Expected:
        exact = [side.detach().double().requires_grad_() for side in z]
        loss = reference.contrastive_alignment(exact[0], exact[1], y[0], y[1], margin=MARGIN, pairs="all")
        return Expected(loss.item(), [(slice(None), gradient) for gradient in torch.autograd.grad(loss, exact)])

    # If all gradients are 0, errors are relative to the largest gradient of one pair.
    return Problem(z, (*z, *y), expect, smallest=2 * MARGIN / cell.rows**2)


class Benchmark(LossBenchmark):
    """Measures the loss over all pairs."""

    contestants = CONTESTANTS

    def __init__(self, options: SimpleNamespace) -> None:
        super().__init__(options)
        self.timed = not options.hard
        self.floor_names = (f"floor: {PRODUCTS[2 if options.memory else 3]} products",)

    def cells(self) -> list[Cell]:
        o = self.options
        sizes = (o.rows, o.width, o.labels, o.dtype, o.memory)
        if o.full + o.hard + any(sizes) > 1:
            raise click.UsageError("--full, --hard, and sizes exclude each other")
        if o.hard:
            return [Cell(HARD_ROWS, HARD_WIDTH, case=case) for case in CASES]
        if not any(sizes):
            return SWEEP if o.full else QUICK
        rows = o.rows or ((32,) if o.memory else (4096,))
        return product(rows, o.width or (512,), o.labels or LABELS, o.dtype or ("float32",), o.memory or 0)

    @cached_property
    def rate(self) -> float:
        """Floating-point operations per second in dense products."""
        a = torch.ones(PROBE, PROBE, device=self.device)
        seconds = []
        for _ in range(3):
            start = perf_counter()
            (a @ a).sum().item()  # waits for the device
            seconds.append(perf_counter() - start)
        return 2 * PROBE**3 / min(seconds)

    def obstacle(self, cell: Cell) -> str | None:
        seconds = 2 * cell.products * math.prod(cell.sides) * cell.width / self.rate
        if seconds <= self.options.longest:
            return super().obstacle(cell)
        about = f"{PRODUCTS[cell.products]} products would take about {seconds:.0f} s"
        return f"{about}, more than the {self.options.longest:g} s of --longest"

    def make_problem(self, cell: Cell) -> Problem:
        return (make_hard_problem if cell.case else make_problem)(cell, self.device)

    def needs(self, cell: Cell) -> float:
        """Return the bytes of a copy of the inputs, and of what fastccsa holds."""
        return cell.input_bytes + self.contestants[0].held(cell)

    def floors(self, problem: Problem, cell: Cell) -> list[Floor]:
        """Make the floor: the matrix products that every dense method needs, without its element-wise work."""
        if self.too_large(cell.matrix_bytes + cell.bytes_moved - cell.input_bytes):
            return []
        a, b = (z.detach() for z in problem.arguments[:2])
        gradients = [torch.empty_like(z) for z in (a, b)]
        matrix = a.new_empty(len(a), len(b))

        def products() -> None:
            torch.mm(a, b.t(), out=matrix)
            torch.mm(matrix, b, out=gradients[0])
            if cell.products == 3:
                torch.mm(matrix.t(), a, out=gradients[1])

        return [Floor(f"floor: {PRODUCTS[cell.products]} products", "", products)]
