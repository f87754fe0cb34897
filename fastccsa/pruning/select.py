"""Greedy selection of a layer's input channels by the gradient of its joint loss.

    L(W) = L_M(W) + lambda L_S(W)

L_M is quadratic in W and is known exactly from the Gram matrix. L_S, the loss of the network behind the layer, is
evaluated exactly, with its gradient, at ``refreshes`` points of the path, and is linear in between. Minimising
L over the kept channels is then least squares with a tilt T, a damped average of the gradients of L_S:

    W = argmin L_M(W) + lambda <T, W>,        T <- T + eta (grad L_S(W) - T)

At a fixed point T is the gradient of L_S and W a stationary point of L. The step length eta is halved until the true
L falls, so L never rises by a refresh. Where a layer has no more channels than there are refreshes, nothing
is extrapolated: the gradient is renewed for every channel.

After Zhuang et al., "Discrimination-aware Channel Pruning for Deep Neural Networks" (NeurIPS 2018), Algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fastccsa.pruning.discrimination import Discrimination
from fastccsa.pruning.factor import GrowingFactor
from fastccsa.pruning.gram import Gram

REFRESHES = 16
HALVINGS = 6
SETTLING = 2  # refreshes on the channels that stay


@dataclass(frozen=True)
class Path:
    """The order in which channels were taken, and the joint loss it led through.

    Attributes:
        order: channels, the most important first.
        losses: L with none, one, two, ... of them; exact at the refreshes, in between by L_M and a linear L_S,
            scaled to meet the exact values.
    """

    order: tuple[int, ...]
    losses: tuple[float, ...]


class Selection:
    """One layer's selection: `walk` the path, then take the `weight` of some of its first channels.

    Args:
        gram: the layer's inputs and baseline outputs.
        conv: the layer.
        discrimination: L_S; None leaves reconstruction alone.
        loss_weight: lambda.
        ranking: channels in the order in which to take them, for other criteria; None is the joint gradient's.
        steps: how many channels to take; None takes all.
        refreshes: evaluations of L_S along a path over all channels.
    """

    def __init__(
        self,
        gram: Gram,
        conv: nn.Conv2d,
        discrimination: Discrimination | None = None,
        loss_weight: float = 1.0,
        ranking: Sequence[int] | None = None,
        steps: int | None = None,
        refreshes: int = REFRESHES,
    ) -> None:
        self._gram = gram
        self._shape = (conv.out_channels, gram.channels, *conv.kernel_size)
        self._discrimination = discrimination if loss_weight else None
        self._loss_weight = loss_weight if discrimination is not None else 0.0
        self._ranking = ranking
        self._steps = gram.channels if steps is None else steps
        self._interval = math.ceil(gram.channels / refreshes)
        self._factor = GrowingFactor(gram, self._steps)
        self._tilt = torch.zeros_like(gram.cross)
        self._gradient = torch.zeros_like(gram.cross)  # of L_S, when it was last evaluated
        self._step_length = 1.0
        self._taken = torch.zeros(gram.channels, dtype=torch.bool, device=gram.cross.device)

    def walk(self, after_channel: Callable[[], object] = lambda: None) -> Path:
        """Take channel after channel; ``after_channel`` is called for each."""
        losses = [self._refresh(0)]
        falls: list[float] = []
        for step in range(1, self._steps + 1):
            channel = self._best() if self._ranking is None else self._ranking[step - 1]
            self._factor.add(channel)
            self._taken[channel] = True
            falls.append(self._last_fall())
            after_channel()
            if step % self._interval == 0 or step == self._steps:
                losses += _between(losses[-1], self._refresh(step), falls)
                falls = []
        return Path(tuple(self._factor.order), tuple(losses))

    def weight(self, count: int) -> Tensor:
        """Compute the weight [m, count, kh, kw] on the first ``count`` channels of the path, in ascending order."""
        for _ in range(SETTLING if self._discrimination else 0):
            self._refresh(count)
        kept = sorted(self._factor.order[:count])
        return self._as_weight(self._weights(count))[:, kept]

    def _best(self) -> int:
        """Find the channel with the largest gradient of L, all candidates at once."""
        unexplained, of_tilt = self._factor.residual
        elements, scale = self._gram.elements, self._loss_weight
        # Of the tilted least squares, and what the tilt lacks of the gradient of L_S.
        gradient = scale * (of_tilt + self._gradient - self._tilt) - unexplained / elements
        norms = gradient.view(self._gram.channels, -1).square().sum(1)
        return int(norms.masked_fill(self._taken, -1.0).argmax())

    def _last_fall(self) -> float:
        """By how much the last channel lowered L, L_S being linear."""
        cross, tilt = self._factor.solved(len(self._factor.order))
        taps, elements = self._gram.taps, self._gram.elements
        change = cross[-taps:] - self._loss_weight * elements * tilt[-taps:]
        return float(change.square().sum()) / (2 * elements)

    def _refresh(self, count: int) -> float:
        """Evaluate L on the first ``count`` channels, and move the weights down the gradient of L_S; the new L."""
        cross, tilt = (part.clone() for part in self._factor.solved(count))
        if self._discrimination is None:
            return self._reconstruction_loss(cross, tilt)
        discrimination, gradient = self._discrimination.gradient(self._as_weight(self._weights(count)))
        self._gradient = self._as_matrix(gradient)
        loss = self._reconstruction_loss(cross, tilt) + self._loss_weight * discrimination
        if count == 0:
            return loss
        towards = self._factor.solve(self._gradient, count) - tilt
        length = min(1.0, 2 * self._step_length)
        for _ in range(HALVINGS):
            tried = tilt + length * towards
            weights = self._factor.weights(self._tilted(cross, tried), count)
            value = self._discrimination.value(self._as_weight(weights))
            moved = self._reconstruction_loss(cross, tried) + self._loss_weight * value
            if moved < loss:
                self._tilt = self._tilt + length * (self._gradient - self._tilt)
                self._factor.set_tilt(self._tilt, tried)
                self._step_length = length
                return moved
            length /= 2
        self._step_length = length
        return loss

    def _weights(self, count: int) -> Tensor:
        return self._factor.weights(self._tilted(*self._factor.solved(count)), count)

    def _tilted(self, cross: Tensor, tilt: Tensor) -> Tensor:
        return cross - self._loss_weight * self._gram.elements * tilt

    def _reconstruction_loss(self, cross: Tensor, tilt: Tensor) -> float:
        """Compute L_M, ridge included, at the least-squares weights of these solved right-hand sides."""
        elements = self._gram.elements
        explained = float(cross.square().sum())
        off = (self._loss_weight * elements) ** 2 * float(tilt.square().sum())
        return (self._gram.energy - explained + off) / (2 * elements)

    def _as_weight(self, matrix: Tensor) -> Tensor:
        """[p, m] float64 as a convolution's weight [m, c, kh, kw] float32."""
        return matrix.T.reshape(self._shape).float()

    def _as_matrix(self, weight: Tensor) -> Tensor:
        return weight.flatten(1).T.double().contiguous()


def _between(first: float, last: float, falls: Sequence[float]) -> list[float]:
    """Losses after each of the channels that led from loss ``first`` to ``last``, in proportion to ``falls``."""
    total = sum(falls)
    shares = [fall / total for fall in falls] if total > 0 else [1 / len(falls)] * len(falls)
    values, passed = [], 0.0
    for share in shares:
        passed += share
        values.append(first + passed * (last - first))
    return [*values[:-1], last]


def kept_by_threshold(path: Path, threshold: float) -> int:
    """Count the channels taken when ``|L(t-1) - L(t)| / L(0) <= threshold`` first holds; all if it never does."""
    first = path.losses[0]
    for count, (before, after) in enumerate(zip(path.losses, path.losses[1:], strict=False), start=1):
        if abs(before - after) <= threshold * first:
            return count
    return len(path.losses) - 1
