"""Greedy selection of a layer's input channels by the gradient of its joint loss.

    L(W) = L_M(W) + lambda L_S(W)

Each iteration adds the channel with the largest gradient of L. Then the weights W of all chosen channels minimise L_M
or, with ``descend``, take a step that decreases L:

    W_t = argmin over W of  L_M(W) + lambda <(1 - t) S + t g, W>,    S <- (1 - t) S + t g

Here g is the gradient of L_S at the start of the step, S (the slope) is what remains of the gradients of earlier steps,
and t is the one of `STEPS` for which L is smallest: a gradient step in the metric of the Hessian of L_M, with a line
search. With S = 0 there is only reconstruction; if S = g, W is a minimum of L.

A layer has more weights than there are images for L_S. Following the gradient of these images could therefore reduce
L_S to almost nothing on them while increasing it on all others. So L is evaluated on images that were not used for g: a
step is only as long as it also lowers L on those images.

L_M, its gradient for every candidate, and every W_t are computed exactly from the Gram matrix. L_S and its gradient are
computed exactly on the cached inputs, but not for every channel: only each time that the number of channels has grown
by the factor `GROWTH`. In between, the last gradient (with ``descend``, the slope) replaces it, the weights are updated
for each channel, and L is assumed to fall in proportion to the function that the weights minimise.

After Zhuang et al., "Discrimination-aware Channel Pruning for Deep Neural Networks" (NeurIPS 2018), Algorithm 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from fastccsa.pruning.discrimination import Discrimination
from fastccsa.pruning.factor import GrowingFactor
from fastccsa.pruning.gram import Gram

GROWTH = 1.5
STEPS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.0)


@dataclass(frozen=True)
class Path:
    """The order in which channels were chosen, and the losses along the way.

    Attributes:
        order: channels, most important first.
        losses: L with none, one, two, ... of them.
        reconstruction: the minimum of L_M with as many.
    """

    order: tuple[int, ...]
    losses: tuple[float, ...]
    reconstruction: tuple[float, ...]


class Selection:
    """The selection in one layer: `walk` the path, then compute the `weight` of its first channels.

    Args:
        gram: the layer's inputs and baseline outputs.
        conv: the layer.
        discrimination: L_S, for its gradient; None uses only reconstruction.
        check: L_S on other images, for its value; None uses those of the gradient.
        loss_weight: lambda.
        ranking: the order in which to choose channels, for other criteria; None uses the joint gradient.
        steps: number of channels to choose; None chooses all.
        descend: let the weights descend L; otherwise they minimise L_M, and L_S only takes part in the choice.
        growth: factor by which the number of channels grows between two evaluations of the gradient of L_S; 1 evaluates
            it for every channel.
    """

    def __init__(
        self,
        gram: Gram,
        conv: nn.Conv2d,
        discrimination: Discrimination | None = None,
        check: Discrimination | None = None,
        loss_weight: float = 1.0,
        ranking: Sequence[int] | None = None,
        steps: int | None = None,
        growth: float = GROWTH,
        descend: bool = True,
    ) -> None:
        self._gram = gram
        self._shape = (conv.out_channels, gram.channels, *conv.kernel_size)
        self._discrimination = discrimination if loss_weight else None
        self._check = (check or discrimination) if loss_weight else None
        self._loss_weight = loss_weight
        self._ranking = ranking
        self._steps = gram.channels if steps is None else steps
        self._growth = growth
        self._descends = descend and self._discrimination is not None
        self._factor = GrowingFactor(gram, self._steps)
        self._target = self._factor.follow(gram.cross)
        # The gradient of L_S that the choice uses, and S, which is updated with the channels; both times Q lambda.
        self._pull = torch.zeros_like(gram.cross)
        self._slope = torch.zeros_like(gram.cross)
        self._slope_side = self._factor.follow(self._slope)
        self._past: list[tuple[int, Tensor]] = []  # (number of channels up to which a slope was used, its solution)
        self._first_step = 0  # index into STEPS: one step longer than the last one used
        self._taken = torch.zeros(gram.channels, dtype=torch.bool, device=gram.cross.device)

    def walk(self, after_channel: Callable[[], object] = lambda: None) -> Path:
        """Choose channel after channel, and call ``after_channel`` after each."""
        known, falls, following = {}, [], 0
        for count in range(self._steps):
            renew = count == following
            if renew:
                following = max(count + 1, math.ceil(count * self._growth))
                known[count] = self._refresh()
            channel = self._best() if self._ranking is None else self._ranking[count]
            self._factor.add(channel)
            self._taken[channel] = True
            falls.append(self._last_fall())
            if renew and self._descends:
                self._past.append((count, self._slope_side.solved[: self._factor.taken].float()))
                known[count + 1] = self._descend()
            after_channel()
        if self._steps not in known:
            known[self._steps] = self._joint_loss()
        self._past.append((self._steps, self._slope_side.solved))
        return Path(tuple(self._factor.order), joint_losses(known, falls), self._reconstructions())

    def weight(self, count: int) -> Tensor:
        """Compute the weight [m, count, kh, kw] on the first ``count`` channels of the path, in ascending order."""
        slope = next(solved for until, solved in self._past if count <= until)
        rows = count * self._gram.taps
        solved = self._target.solved[:rows] - slope[:rows].double()
        return self._shaped(self._factor.weights(solved, count))[:, sorted(self._factor.order[:count])]

    def _best(self) -> int:
        """Return the channel with the largest gradient of L, computed for all candidates at once."""
        # The gradient of L_M is -1/Q (H - G W), where W solves the least squares of H minus the slope.
        left = self._target.residual - self._slope_side.residual + self._slope
        norms = (self._pull - left).view(self._gram.channels, -1).square().sum(1)
        return int(norms.masked_fill(self._taken, -1.0).argmax())

    def _last_fall(self) -> float:
        """Return by how much the last channel lowered the minimised function."""
        rows = slice(self._factor.taken - self._gram.taps, self._factor.taken)
        fall = (self._target.solved[rows] - self._slope_side.solved[rows]).square().sum()
        return float(fall) / (2 * self._gram.elements)

    def _refresh(self) -> float:
        """Evaluate L, and the gradient of L_S, at the current weights."""
        if self._discrimination is None or self._check is None:
            return self._reconstruction(self._slope_side.solved)
        solved, slope = self._target.solved, self._slope_side.solved
        weight = self._shaped(self._factor.weights(solved - slope, len(self._factor.order)))
        loss, gradient = self._discrimination.gradient(weight)
        if self._check is not self._discrimination:
            loss = self._check.loss(weight)
        self._pull = self._gram.elements * self._loss_weight * gradient.flatten(1).T.double()
        return self._reconstruction(slope) + self._loss_weight * loss

    def _joint_loss(self) -> float:
        """Evaluate L at the current weights."""
        slope, count = self._slope_side.solved, len(self._factor.order)
        loss = self._reconstruction(slope)
        if self._check is not None:
            weight = self._factor.weights(self._target.solved - slope, count)
            loss += self._loss_weight * self._check.loss(self._shaped(weight))
        return loss

    def _descend(self) -> float:
        """Move the weights by the step length with the smallest L, and return that L."""
        assert self._check is not None
        count, rows = len(self._factor.order), slice(self._factor.taken)
        before, after = self._slope_side.solved[rows], self._factor.solve(self._pull)
        begin = self._factor.weights(self._target.solved[rows] - before, count)
        way = self._factor.weights(before - after, count)
        best, found = self._first_step, math.inf
        for number in range(self._first_step, len(STEPS)):
            step = STEPS[number]
            loss = self._loss_weight * self._check.loss(self._shaped(begin + step * way))
            loss += self._reconstruction((1 - step) * before + step * after)
            if loss >= found:
                break
            best, found = number, loss
        step = STEPS[best]
        self._first_step = max(best - 1, 0)
        left = self._factor.residual(self._pull, after)
        self._slope_side.solved[rows] = (1 - step) * before + step * after
        self._slope_side.residual.lerp_(left, step)
        self._slope = self._pull = torch.lerp(self._slope, self._pull, step)
        return found

    def _reconstructions(self) -> tuple[float, ...]:
        """Return the minimum of L_M, including the ridge, over the weights of the first 0, 1, 2, ... channels."""
        by_channel = self._target.solved.square().sum(1).view(-1, self._gram.taps).sum(1)
        left = self._gram.energy - torch.cat([by_channel.new_zeros(1), by_channel]).cumsum(0)
        return tuple((left / (2 * self._gram.elements)).tolist())

    def _reconstruction(self, slope: Tensor) -> float:
        """Return L_M, including the ridge, of the chosen channels; ``slope`` is the solution of the slope."""
        squares = float(self._target.solved.square().sum()) - float(slope.square().sum())
        return (self._gram.energy - squares) / (2 * self._gram.elements)

    def _shaped(self, weight: Tensor) -> Tensor:
        """Reshape a weight [p, m] to that of the convolution, [m, c, kh, kw] float32."""
        return weight.T.reshape(self._shape).float()


def joint_losses(known: dict[int, float], falls: Sequence[float]) -> tuple[float, ...]:
    """Interpolate L between the numbers of channels for which it is known.

    Args:
        known: L by number of channels, at least for none and for all.
        falls: by how much the first, second, ... channel lowered the minimised function; L falls in proportion to it.
    """
    losses = [known[0]]
    for begin, end in pairwise(sorted(known)):
        total = math.fsum(falls[begin:end])
        passed = 0.0
        for number in range(begin, end):
            passed += falls[number] / total if total > 0 else 1 / (end - begin)
            losses.append(known[begin] + passed * (known[end] - known[begin]))
    return tuple(losses)
