"""Least squares on a growing set of channels: a block Cholesky factor that grows by a block with each channel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fastccsa.pruning.gram import Gram

RIDGE = 1e-4  # relative to a channel's mean square: far above the Gram matrix's rounding errors, and negligible


@dataclass
class Side:
    """A right-hand side B [p, m] of the least squares, updated as the set A of chosen channels grows.

    Attributes:
        solved: ``R'^-1 B_A``, with rows in the order of the channels; the remaining rows are 0.
        residual: ``B - G_:A G_AA^-1 B_A``, the residual of B.
    """

    solved: Tensor
    residual: Tensor


class GrowingFactor:
    """The factor R of a layer's Gram matrix G (plus a ridge) on the channels A chosen so far, ``R'R = G_AA``.

    Adding a channel costs O(p^2), the cost of reading R once; nothing is factored again.

    Args:
        gram: the layer.
        steps: maximum number of channels to choose.

    Attributes:
        order: the chosen channels.
    """

    def __init__(self, gram: Gram, steps: int) -> None:
        self._gram = gram
        self._rows = gram.cross.new_zeros(steps * gram.taps, len(gram.cross))
        squares = gram.inputs.diagonal().view(-1, gram.taps).mean(1)
        # A channel that is zero everywhere needs a ridge too, or its block would be singular.
        self._ridge = RIDGE * squares.clamp_min(max(float(squares.max()), 1e-30) * 1e-9)
        self._sides: list[Side] = []
        self.order: list[int] = []

    @property
    def taken(self) -> int:
        """Number of rows of R."""
        return len(self.order) * self._gram.taps

    def follow(self, columns: Tensor) -> Side:
        """Start to update the right-hand side ``columns`` [p, m]; must be called before any channel is added."""
        side = Side(columns.new_zeros(len(self._rows), columns.shape[1]), columns.clone())
        self._sides.append(side)
        return side

    def add(self, channel: int) -> None:
        """Add a channel."""
        taps = self._gram.taps
        block = slice(channel * taps, (channel + 1) * taps)
        new = slice(self.taken, self.taken + taps)
        before = self._rows[: new.start]
        row = self._gram.inputs[block] - before[:, block].T @ before
        own = row[:, block] + self._ridge[channel] * torch.eye(taps, dtype=row.dtype, device=row.device)
        lower = torch.linalg.cholesky(own)
        row = torch.linalg.solve_triangular(lower, row, upper=False)
        row[:, block] = lower.T
        self._rows[new] = row
        for side in self._sides:
            solved = torch.linalg.solve_triangular(lower, side.residual[block], upper=False)
            side.solved[new] = solved
            side.residual -= row.T @ solved
        self.order.append(channel)

    def solve(self, columns: Tensor) -> Tensor:
        """Compute ``R'^-1 columns_A`` [rows of R, m] for any ``columns`` [p, m]."""
        chosen = self._chosen(len(self.order))
        lower = self._rows[: self.taken, chosen].T
        return torch.linalg.solve_triangular(lower, columns[chosen], upper=False)

    def residual(self, columns: Tensor, solved: Tensor) -> Tensor:
        """Compute the residual of ``columns``, given the result of `solve` for them."""
        return columns - self._rows[: self.taken].T @ solved

    def weights(self, solved: Tensor, count: int) -> Tensor:
        """Compute ``R^-1 solved`` for the first ``count`` channels: [p, m], 0 for the others."""
        chosen = self._chosen(count)
        weights = self._gram.cross.new_zeros(len(self._gram.cross), solved.shape[1])
        factor = self._rows[: len(chosen)][:, chosen]
        weights[chosen] = torch.linalg.solve_triangular(factor, solved[: len(chosen)], upper=True)
        return weights

    def _chosen(self, count: int) -> Tensor:
        """Return the rows of G that belong to the first ``count`` channels, in their order."""
        taps = self._gram.taps
        order = torch.tensor(self.order[:count], dtype=torch.int64, device=self._rows.device)
        return (order[:, None] * taps + torch.arange(taps, device=order.device)).flatten()
