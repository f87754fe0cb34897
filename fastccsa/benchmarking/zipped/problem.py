"""The data of a cell, and what its results must be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastccsa import reference
from fastccsa.benchmarking.zipped.cells import Cell

__all__ = ["Expected", "Problem"]

MARGIN, ALPHA = 50.0, 0.5
MATCHES = 0.25  # share of pairs of equal labels, as the sampler draws them
CHUNK_BYTES = 1 << 26  # of features in float64 at a time
GRADIENT_ROWS = 16384


class Expected(NamedTuple):
    """The loss in float64, and the gradients of some rows."""

    loss: float
    rows: Tensor  # their numbers
    gradients: tuple[Tensor, ...]


@dataclass(frozen=True)
class Problem:
    """Everything a loss function is called with.

    Attributes:
        inputs: logits1, logits2 [N, C], features1, features2 [N, D], all leaves that require a gradient.
        targets: target1, target2 [N].
        weights: class_weight1, class_weight2 [C] and pair_weight [C, C] in the dtype of sums, or None each.
    """

    inputs: tuple[Tensor, ...]
    targets: tuple[Tensor, Tensor]
    weights: tuple[Tensor | None, ...]

    @classmethod
    def of(cls, cell: Cell, device: torch.device | str = "cpu", seed: int = 0) -> Problem:
        """Random data, the same for the same cell; about half of the distances lie within the margin."""
        device = torch.device(device)
        random = torch.Generator(device).manual_seed(seed)
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
        weights = tuple(0.1 + uniform(*shape) if cell.weighted else None for shape in shapes)
        return cls(inputs, (target1, target2), weights)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The arguments of a loss function, in order."""
        return (*self.inputs, *self.targets, *self.weights, MARGIN, ALPHA)

    @property
    def pairs(self) -> int:
        """N."""
        return self.targets[0].shape[0]

    def rows(self, which: slice | Tensor, dtype: torch.dtype | None = None) -> Problem:
        """Some pairs as a problem of their own, in another dtype if one is given."""
        inputs = tuple(x.detach()[which].to(dtype).requires_grad_() for x in self.inputs)
        target1, target2 = (y[which] for y in self.targets)
        weights = tuple(w if w is None or dtype is None else w.to(dtype) for w in self.weights)
        return replace(self, inputs=inputs, targets=(target1, target2), weights=weights)

    @cached_property
    def expected(self) -> Expected:
        """The loss in float64 of all rows, and gradients of all rows or of some thousand evenly spread."""
        width = self.inputs[0].shape[1] + self.inputs[2].shape[1]
        chunk = max(1, CHUNK_BYTES // (8 * width))
        total = 0.0
        for start in range(0, self.pairs, chunk):
            with torch.no_grad():
                part = self.rows(slice(start, start + chunk), torch.float64)
                total += reference.weighted_ccsa_loss(*part.arguments, reduction="sum").item()
        # A pair's gradient depends on the others through the mean's divisor alone.
        rows = torch.arange(0, self.pairs, math.ceil(self.pairs / GRADIENT_ROWS), device=self.targets[0].device)
        some = self.rows(rows, torch.float64)
        with torch.enable_grad():
            loss = reference.weighted_ccsa_loss(*some.arguments, reduction="sum") / self.pairs
        return Expected(total / self.pairs, rows, torch.autograd.grad(loss, some.inputs))

    def loss_error(self, loss: Tensor) -> float:
        """Relative error of a loss against float64."""
        return abs(loss.item() - self.expected.loss) / abs(self.expected.loss)

    def gradient_error(self, gradients: tuple[Tensor, ...]) -> float:
        """Largest error of a gradient, relative to the largest entry of that gradient."""
        pairs = zip(gradients, self.expected.gradients, strict=True)
        errors = [
            ((got[self.expected.rows].to(torch.float64) - true).abs().max() / true.abs().max()).item()
            for got, true in pairs
        ]
        return math.nan if any(map(math.isnan, errors)) else max(errors)
