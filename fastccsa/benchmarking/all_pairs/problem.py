"""The data of a cell, and what its results must be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fastccsa.benchmarking.all_pairs.cells import TABLE1 as TABLE1_LABELS
from fastccsa.benchmarking.all_pairs.cells import Cell
from fastccsa.collections.taxonomy import TABLE1

__all__ = ["MARGIN", "Problem", "dense_sum"]

MARGIN = 30.0
CLASSES = 7
LOSS_OPERATIONS = 2e11  # above, the loss is not computed in float64; gradients of some rows always are
GRADIENT_ROWS = 32
CHUNK_ENTRIES = 1 << 23  # of a float64 matrix at a time


def dense_sum(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor, margin: float = MARGIN) -> Tensor:
    """The sum over all pairs, from their whole matrix; exact enough in float64 where points are not near each other."""
    squared = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.t()).clamp(min=0)
    distance = squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()
    return torch.where(y1[:, None] == y2, squared, (margin - distance).clamp(min=0).square()).sum()


@dataclass(frozen=True)
class Problem:
    """Everything a loss function is called with: features of both sides, and their labels.

    Attributes:
        features: [N, D] each, leaves, which require a gradient unless they are a memory.
        targets: [N] each.
        exact_loss: whether the loss in float64 is worth its time.
    """

    features: tuple[Tensor, Tensor]
    targets: tuple[Tensor, Tensor]
    exact_loss: bool = True

    @classmethod
    def of(cls, cell: Cell, device: torch.device | str = "cpu", seed: int = 0) -> Problem:
        """Random data, the same for the same cell; the distances of all pairs lie around the margin."""
        device = torch.device(device)
        random = torch.Generator(device).manual_seed(seed)
        weights = torch.ones(CLASSES, device=device)
        if cell.labels == TABLE1_LABELS:
            counts = [sum(domain[c] for domain in TABLE1.values()) for c in next(iter(TABLE1.values()))]
            weights = torch.tensor(counts, dtype=torch.float32, device=device)

        def features(rows: int) -> Tensor:
            values = torch.randn(rows, cell.width, generator=random, device=device)
            return values.mul_(MARGIN / math.sqrt(2 * cell.width)).to(getattr(torch, cell.dtype))

        def labels(rows: int) -> Tensor:
            return torch.multinomial(weights, rows, replacement=True, generator=random)

        rows, others = cell.sides
        a, b = features(rows).requires_grad_(), features(others).requires_grad_(not cell.memory)
        return cls((a, b), (labels(rows), labels(others)), cell.operations / cell.products <= LOSS_OPERATIONS)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What gradients flow to."""
        return tuple(z for z in self.features if z.requires_grad)

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """The arguments of a loss function, in order."""
        return (*self.features, *self.targets)

    @cached_property
    def _exact(self) -> tuple[Tensor, Tensor]:
        a, b = (z.detach().double() for z in self.features)
        return a, b

    @cached_property
    def _expected_loss(self) -> float:
        (a, b), (y1, y2) = self._exact, self.targets
        rows = max(1, CHUNK_ENTRIES // len(b))
        parts = (dense_sum(x, b, y, y2).item() for x, y in zip(a.split(rows), y1.split(rows), strict=True))
        return sum(parts) / (len(a) * len(b))

    @cached_property
    def _expected_gradients(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """For each input the numbers of some rows, evenly spread, and their gradients in float64."""
        found = []
        for side in range(len(self.inputs)):
            z, other = self._exact[side], self._exact[1 - side]
            y, other_y = self.targets[side], self.targets[1 - side]
            rows = torch.arange(0, len(z), math.ceil(len(z) / GRADIENT_ROWS), device=z.device)
            some = z[rows].requires_grad_()
            with torch.enable_grad():
                total = dense_sum(some, other, y[rows], other_y)
            found.append((rows, torch.autograd.grad(total, some)[0] / (len(z) * len(other))))
        return tuple(found)

    def loss_error(self, loss: Tensor) -> float | None:
        """Relative error of a loss against float64; None where that would take too long."""
        if not self.exact_loss:
            return None
        return abs(loss.item() - self._expected_loss) / abs(self._expected_loss)

    def gradient_error(self, gradients: tuple[Tensor, ...]) -> float:
        """Largest error in the gradients of some rows, relative to the largest entry there."""
        errors = [
            ((got[rows].double() - true).abs().max() / true.abs().max()).item()
            for got, (rows, true) in zip(gradients, self._expected_gradients, strict=True)
        ]
        return math.nan if any(map(math.isnan, errors)) else max(errors)
