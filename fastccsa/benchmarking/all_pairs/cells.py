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
    """One place in the benchmark: forward and the gradients of both sides.

    Attributes:
        rows: N, of either side: N * N pairs.
        width: D, columns of the features.
        labels: ``"uniform"``: seven classes alike; ``"table1"``: as often as in the paper's Table 1.
        dtype: of the features.
    """

    rows: int
    width: int = 512
    labels: str = UNIFORM
    dtype: str = "float32"

    @property
    def title(self) -> str:
        """The cell in one line."""
        return f"N={self.rows} D={self.width} {self.dtype}, labels {self.labels}"

    @property
    def gradient_bytes(self) -> int:
        """Gradients of both sides; the features themselves are as large."""
        return 2 * self.rows * self.width * FEATURE_BYTES[self.dtype]

    @property
    def input_bytes(self) -> int:
        """Features and labels of both sides."""
        return self.gradient_bytes + 2 * self.rows * LABEL_BYTES

    @property
    def matrix_bytes(self) -> int:
        """One matrix of N * N values, in the type that sums are kept in."""
        return self.rows**2 * (8 if self.dtype == "float64" else 4)

    @property
    def operations(self) -> float:
        """Multiplications and additions of three dense products."""
        return 6.0 * self.rows**2 * self.width


def product(rows: Sequence[int], widths: Sequence[int], labels: Sequence[str], dtypes: Sequence[str]) -> list[Cell]:
    """Every combination."""
    return [Cell(n, d, y, dtype) for dtype, d, n, y in itertools.product(dtypes, widths, rows, labels)]


def quick() -> list[Cell]:
    """A minute or two on two cores."""
    return product((4096,), (512,), LABELS, ("float32",))


def sweep() -> list[Cell]:
    """All sizes, the most important width first."""
    return product((1024, 4096, 16384, 65536, 262144), (512, 128, 2048), LABELS, ("float32",))
