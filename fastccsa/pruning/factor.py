"""Least squares on a growing set of channels: a block Cholesky factor that gains a block with each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa.pruning.gram import Gram

RIDGE = 1e-4  # of a channel's own mean square: far above the rounding of the Gram matrix, far below what matters


class GrowingFactor:
    """Reconstruction by the channels taken so far, and what it leaves of the outputs.

    With G the Gram matrix plus a ridge, H the cross term and A the channels taken, in their order, it keeps R with
    ``R'R = G_AA`` and ``R'^-1 H_A``. A channel costs O(p^2), which is reading R once; nothing is factored anew.

    Args:
        gram: the layer.
        steps: how many channels will be taken at most.

    Attributes:
        order: the channels taken.
        residual: ``H - G_:A W_A`` with the least-squares weights W, [p, m]; the gradient of L_M is -1/Q of it.
        losses: L_M, ridge included, with none, one, two, ... channels.
    """

    def __init__(self, gram: Gram, steps: int) -> None:
        self._gram = gram
        size, width = gram.cross.shape
        self._rows = gram.cross.new_zeros(steps * gram.taps, size)
        self._solved = gram.cross.new_zeros(steps * gram.taps, width)
        squares = gram.inputs.diagonal().view(-1, gram.taps).mean(1)
        # A channel that is zero everywhere has a ridge too, or its block would have no factor.
        self._ridge = RIDGE * squares.clamp_min(max(float(squares.max()), 1e-30) * 1e-9)
        self.order: list[int] = []
        self.residual = gram.cross.clone()
        self.losses = [gram.energy / (2 * gram.elements)]

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
        solved = torch.linalg.solve_triangular(lower, self.residual[block], upper=False)
        self._rows[new], self._solved[new] = row, solved
        self.residual -= row.T @ solved
        self.order.append(channel)
        self.losses.append(self.losses[-1] - float(solved.square().sum()) / (2 * self._gram.elements))

    def weights(self, count: int) -> Tensor:
        """Compute the weights that minimise L_M on the first ``count`` channels, [p, m] with zeros elsewhere."""
        taps = self._gram.taps
        order = torch.tensor(self.order[:count], dtype=torch.int64, device=self._rows.device)
        chosen = (order[:, None] * taps + torch.arange(taps, device=order.device)).flatten()
        weights = torch.zeros_like(self._gram.cross)
        factor = self._rows[: len(chosen)][:, chosen]
        weights[chosen] = torch.linalg.solve_triangular(factor, self._solved[: len(chosen)], upper=True)
        return weights
