"""Which sizes are measured, and how many bytes a call of each has to move."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastccsa.benchmarking.element_bytes import FEATURE_BYTES, LABEL_BYTES

__all__ = ["BACKWARD", "FORWARD", "MODES", "Cell", "product", "quick", "sweep"]

FORWARD, BACKWARD = "forward", "forward+backward"
MODES = (FORWARD, BACKWARD)


@dataclass(frozen=True)
class Cell:
    """One place in the benchmark.

    Attributes:
        pairs: N.
        width: D, columns of the features.
        classes: C, columns of the logits.
        dtype: of logits and features.
        mode: forward alone, without gradients; or forward and the gradients of all four inputs.
        weighted: with both class weights and the pair weights, or without any.
    """

    pairs: int
    width: int = 512
    classes: int = 7
    dtype: str = "float32"
    mode: str = BACKWARD
    weighted: bool = True

    @property
    def title(self) -> str:
        """The cell in one line."""
        sizes = f"N={self.pairs} D={self.width} C={self.classes}"
        return f"{sizes} {self.dtype}, {self.mode}{'' if self.weighted else ', no weights'}"

    @property
    def problem(self) -> Cell:
        """What cells on the same data have in common."""
        return replace(self, mode=BACKWARD)

    @property
    def gradient_bytes(self) -> int:
        """Gradients of both logits and both features; these inputs themselves are as large."""
        return 2 * self.pairs * (self.classes + self.width) * FEATURE_BYTES[self.dtype]

    @property
    def input_bytes(self) -> int:
        """Logits, features and labels of both streams."""
        return self.gradient_bytes + 2 * self.pairs * LABEL_BYTES

    @property
    def passes(self) -> int:
        """Autograd calls forward and backward apart, so each of them goes through the data."""
        return 2 if self.mode == BACKWARD else 1

    @property
    def bytes_moved(self) -> int:
        """Inputs read in each pass, gradients written in the second: no implementation in two passes moves less."""
        return self.passes * self.input_bytes + (self.gradient_bytes if self.mode == BACKWARD else 0)


def product(
    pairs: Sequence[int],
    widths: Sequence[int],
    classes: Sequence[int],
    dtypes: Sequence[str],
    modes: Sequence[str],
    weighted: bool = True,
) -> list[Cell]:
    """Every combination; cells on the same data follow one another, and before them those that differ in N alone."""
    combinations = itertools.product(classes, widths, dtypes, pairs, modes)
    return [Cell(n, d, c, dtype, mode, weighted) for c, d, dtype, n, mode in combinations]


def quick() -> list[Cell]:
    """About a minute on two cores: a small batch, a large one, and the job that other libraries can express too."""
    return [Cell(32), Cell(65536), Cell(32, weighted=False)]


def sweep() -> list[Cell]:
    """All sizes, the most important first: an unfinished sweep still says most."""
    return product((32, 256, 4096, 65536, 262144), (512, 128, 2048), (7, 1000), ("float32", "bfloat16"), MODES[::-1])
