"""Which sizes are measured, and what a call of each has to move and to multiply."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from fastccsa.benchmarking.element_bytes import FEATURE_BYTES, LABEL_BYTES

__all__ = ["LABELS", "Cell", "product", "quick", "sweep"]

UNIFORM, TABLE1 = "uniform", "table1"
LABELS = (UNIFORM, TABLE1)


@dataclass(frozen=True)
class Cell:
    """One place in the benchmark: forward and the gradients of both sides, or of the first one.

    Attributes:
        rows: N, of either side: N * N pairs.
        width: D, columns of the features.
        labels: ``"uniform"``: seven classes alike; ``"table1"``: as often as in the paper's Table 1.
        dtype: of the features.
        memory: rows of the second side, where these are past features, to which no gradient flows; 0: N others.
    """

    rows: int
    width: int = 512
    labels: str = UNIFORM
    dtype: str = "float32"
    memory: int = 0

    @property
    def title(self) -> str:
        """The cell in one line."""
        against = f" against a memory of {self.memory}" if self.memory else ""
        return f"N={self.rows}{against} D={self.width} {self.dtype}, labels {self.labels}"

    @property
    def sides(self) -> tuple[int, int]:
        """Rows of both."""
        return self.rows, self.memory or self.rows

    @property
    def feature_bytes(self) -> int:
        """Features of both sides."""
        return sum(self.sides) * self.width * FEATURE_BYTES[self.dtype]

    @property
    def gradient_bytes(self) -> int:
        """Gradients of both sides, or of the first one."""
        return self.feature_bytes - self.memory * self.width * FEATURE_BYTES[self.dtype]

    @property
    def input_bytes(self) -> int:
        """Features and labels of both sides."""
        return self.feature_bytes + sum(self.sides) * LABEL_BYTES

    @property
    def moved_bytes(self) -> int:
        """Inputs read, and gradients written."""
        return self.input_bytes + self.gradient_bytes

    @property
    def matrix_bytes(self) -> int:
        """One matrix of all pairs, in the type that sums are kept in."""
        rows, others = self.sides
        return rows * others * (8 if self.dtype == "float64" else 4)

    @property
    def products(self) -> int:
        """How many dense products the loss and its gradients take."""
        return 2 if self.memory else 3

    @property
    def operations(self) -> float:
        """Multiplications and additions of these."""
        rows, others = self.sides
        return 2.0 * self.products * rows * others * self.width


def product(
    rows: Sequence[int], widths: Sequence[int], labels: Sequence[str], dtypes: Sequence[str], memory: int = 0
) -> list[Cell]:
    """Every combination."""
    return [Cell(n, d, y, dtype, memory) for dtype, d, n, y in itertools.product(dtypes, widths, rows, labels)]


def quick() -> list[Cell]:
    """A minute or two on two cores."""
    return product((4096,), (512,), LABELS, ("float32",))


def sweep() -> list[Cell]:
    """All sizes, the most important width first."""
    return product((1024, 4096, 16384, 65536, 262144), (512, 128, 2048), LABELS, ("float32",))
