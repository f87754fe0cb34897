"""Greedy selection of a layer's input channels by the gradient of its joint loss.

    L(W) = L_M(W) + lambda L_S(W)

Exact: L_M, its gradient for every candidate, and the weights on the kept channels that minimise it, all from the Gram
matrix. L_S, the loss of the network behind the layer, and its gradient for every candidate are computed exactly too,
on the cached inputs, but only at ``refreshes`` points of the path; in between the gradient stays what it was, and
L_S runs in proportion to L_M. Where a layer has no more channels than there are refreshes, nothing is approximated.

L_S chooses the channels and stops the selection, but the weights minimise L_M alone: the cached images are so few
beside a layer's weights that minimising L_S on them too makes the outputs something else (a third of their
energy was gone on 96 images); the discrimination is learnt afterwards, by fine-tuning on all images.

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

REFRESHES = 16


@dataclass(frozen=True)
class Path:
    """The order in which channels were taken, and the joint loss it led through.

    Attributes:
        order: channels, the most important first.
        losses: L with none, one, two, ... of them.
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
        self._loss_weight = loss_weight
        self._ranking = ranking
        self._steps = gram.channels if steps is None else steps
        self._interval = math.ceil(gram.channels / refreshes)
        self._factor = GrowingFactor(gram, self._steps)
        self._gradient = torch.zeros_like(gram.cross)  # of lambda L_S, when it was last evaluated
        self._taken = torch.zeros(gram.channels, dtype=torch.bool, device=gram.cross.device)

    def walk(self, after_channel: Callable[[], object] = lambda: None) -> Path:
        """Take channel after channel; ``after_channel`` is called for each."""
        discriminations = {0: self._refresh(0)}
        for step in range(1, self._steps + 1):
            channel = self._best() if self._ranking is None else self._ranking[step - 1]
            self._factor.add(channel)
            self._taken[channel] = True
            if step % self._interval == 0 or step == self._steps:
                discriminations[step] = self._refresh(step)
            after_channel()
        return Path(tuple(self._factor.order), joint_losses(self._factor.losses, discriminations))

    def weight(self, count: int) -> Tensor:
        """Compute the weight [m, count, kh, kw] on the first ``count`` channels of the path, in ascending order."""
        return self._full_weight(count)[:, sorted(self._factor.order[:count])]

    def _best(self) -> int:
        """Find the channel with the largest gradient of L, all candidates at once."""
        gradient = self._gradient - self._factor.residual / self._gram.elements
        norms = gradient.view(self._gram.channels, -1).square().sum(1)
        return int(norms.masked_fill(self._taken, -1.0).argmax())

    def _refresh(self, count: int) -> float:
        """Evaluate lambda L_S and its gradient with the first ``count`` channels."""
        if self._discrimination is None:
            return 0.0
        loss, gradient = self._discrimination.gradient(self._full_weight(count))
        self._gradient = self._loss_weight * gradient.flatten(1).T.double()
        return self._loss_weight * loss

    def _full_weight(self, count: int) -> Tensor:
        """Compute the weight on the first ``count`` channels, [m, c, kh, kw] float32 with zeros elsewhere."""
        return self._factor.weights(count).T.reshape(self._shape).float()


def joint_losses(reconstruction: Sequence[float], discriminations: dict[int, float]) -> tuple[float, ...]:
    """Add L_S, known after some numbers of channels, to L_M, known after all; in between L_S follows L_M.

    Args:
        reconstruction: L_M with none, one, two, ... channels, never rising.
        discriminations: lambda L_S by number of channels, for the first and the last of these at least.
    """
    losses = [reconstruction[0] + discriminations[0]]
    known = sorted(discriminations)
    for begin, end in pairwise(known):
        whole = reconstruction[begin] - reconstruction[end]
        for count in range(begin + 1, end + 1):
            passed = count - begin if whole <= 0 else reconstruction[begin] - reconstruction[count]
            share = passed / (end - begin if whole <= 0 else whole)
            part = (1 - share) * discriminations[begin] + share * discriminations[end]
            losses.append(reconstruction[count] + part)
    return tuple(losses)


def kept_by_threshold(path: Path, threshold: float) -> int:
    """Count the channels taken when ``|L(t-1) - L(t)| / L(0) <= threshold`` first holds; all if it never does."""
    first = path.losses[0]
    for count, (before, after) in enumerate(pairwise(path.losses), start=1):
        if abs(before - after) <= threshold * first:
            return count
    return len(path.losses) - 1
