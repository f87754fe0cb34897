"""Least squares on a growing set of channels: a block Cholesky factor that gains a block with each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa.pruning.gram import Gram

RIDGE = 1e-4  # of a channel's own mean square: far above the rounding of the Gram matrix, far below what matters


class GrowingFactor:
    """The factor of the Gram matrix on the channels taken so far, in their order, and two right-hand sides.

    With G the Gram matrix plus a ridge, A the channels taken, and B one of the right-hand sides [p, m]:
    ``R'R = G_AA``; ``solved`` is ``R'^-1 B_A``; ``residual`` is ``B - G_:A G_AA^-1 B_A``, the part of B that the
    channels taken do not explain. A channel costs O(p^2), which is reading the factor once; nothing is factored anew.
    The first right-hand side is the cross term of the reconstruction, the second starts as zero and is set by
    `set_tilt`.

    Args:
        gram: the layer.
        steps: how many channels will be taken at most.

    Attributes:
        order: the channels taken.
    """

    def __init__(self, gram: Gram, steps: int) -> None:
        self._gram = gram
        size, width = gram.cross.shape
        self._rows = gram.cross.new_zeros(steps * gram.taps, size)
        self._residual = torch.cat([gram.cross, torch.zeros_like(gram.cross)], dim=1)
        self._solved = gram.cross.new_zeros(steps * gram.taps, 2 * width)
        self._width = width
        self.order: list[int] = []
        squares = gram.inputs.diagonal().view(-1, gram.taps).mean(1)
        # A channel that is zero everywhere has a ridge too, or its block would have no factor.
        self._ridge = RIDGE * squares.clamp_min(max(float(squares.max()), 1e-30) * 1e-9)

    def add(self, channel: int) -> None:
        """Take a channel."""
        taps = self._gram.taps
        block = slice(channel * taps, (channel + 1) * taps)
        new = slice(len(self.order) * taps, (len(self.order) + 1) * taps)
        before = self._rows[: new.start]
        row = self._gram.inputs[block] - before[:, block].T @ before
        own = row[:, block] + self._ridge[channel] * torch.eye(taps, dtype=row.dtype, device=row.device)
        lower = torch.linalg.cholesky(own)
        row = torch.linalg.solve_triangular(lower, row, upper=False)
        row[:, block] = lower.T
        self._rows[new] = row
        self._solved[new] = torch.linalg.solve_triangular(lower, self._residual[block], upper=False)
        self._residual -= row.T @ self._solved[new]
        self.order.append(channel)

    def set_tilt(self, tilt: Tensor, solved: Tensor) -> None:
        """Make ``tilt`` [p, m] the second right-hand side; ``solved`` is what `solve` makes of it."""
        count = len(solved)
        self._solved[:count, self._width :] = solved
        self._residual[:, self._width :] = tilt - self._rows[:count].T @ solved

    def solve(self, right: Tensor, count: int) -> Tensor:
        """Compute R'^-1 B_A for any B [p, m] and the first ``count`` channels, [count taps, m]."""
        chosen = self._entries(count)
        factor = self._rows[: len(chosen)][:, chosen]
        return torch.linalg.solve_triangular(factor.T, right[chosen], upper=False)

    def weights(self, solved: Tensor, count: int) -> Tensor:
        """Compute G_AA^-1 B_A from R'^-1 B_A, [p, m] with zeros where a channel is not among the first ``count``."""
        chosen = self._entries(count)
        factor = self._rows[: len(chosen)][:, chosen]
        weights = torch.zeros_like(self._gram.cross)
        weights[chosen] = torch.linalg.solve_triangular(factor, solved, upper=True)
        return weights

    def solved(self, count: int) -> tuple[Tensor, Tensor]:
        """Return R'^-1 B_A of both right-hand sides, for the first ``count`` channels."""
        rows = self._solved[: count * self._gram.taps]
        return rows[:, : self._width], rows[:, self._width :]

    @property
    def residual(self) -> tuple[Tensor, Tensor]:
        """What the channels taken leave of both right-hand sides, [p, m] each."""
        return self._residual[:, : self._width], self._residual[:, self._width :]

    def _entries(self, count: int) -> Tensor:
        """Rows of the Gram matrix that belong to the first ``count`` channels."""
        order = torch.tensor(self.order[:count], dtype=torch.int64, device=self._rows.device)
        taps = torch.arange(self._gram.taps, device=self._rows.device)
        return (order[:, None] * self._gram.taps + taps).flatten()
