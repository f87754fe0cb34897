"""The loss in plain PyTorch, equation by equation: the readable definition, and the oracle of the tests.

Equations are those of the paper (Yoon, Hamarneh and Garbi, MICCAI 2019). Everything here is differentiable any number
of times, runs on any device and dtype, and checks nothing: `fastccsa.functional` has the same functions, fused and
checked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "CCSATerms",
    "contrastive_alignment",
    "pair_terms",
    "weighted_ccsa_loss",
    "weighted_ccsa_loss_terms",
    "weighted_cross_entropy",
]


class CCSATerms(NamedTuple):
    """The loss and the terms it is made of; scalars, or [N] each without a reduction."""

    loss: Tensor
    classification1: Tensor
    classification2: Tensor
    alignment: Tensor
    separation: Tensor


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.mean()


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, class_weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Equation (7): ``w[y] * CE(logits, y)``. `mean` divides by N, `weighted_mean` by the sum of the weights."""
    cross_entropy = torch.logsumexp(logits, 1) - logits.gather(1, target[:, None]).squeeze(1)
    weight = torch.ones_like(cross_entropy) if class_weight is None else class_weight[target]
    if reduction == "weighted_mean":
        return (weight * cross_entropy).sum() / weight.sum()
    return _reduce(weight * cross_entropy, reduction)


def pair_terms(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    pairs: str = "zipped",
) -> tuple[Tensor, Tensor]:
    """Equations (5), (6) and (8) a pair: alignment and separation, [N] zipped or [N1, N2] over all pairs."""
    if pairs == "all":
        z1, z2, y1, y2 = z1[:, None], z2[None], y1[:, None], y2[None]
    squared_distance = (z1 - z2).square().sum(-1)
    # The square root has no gradient at 0; there the separation term's is defined as 0.
    apart = squared_distance > 0
    distance = torch.where(apart, squared_distance, 1).sqrt() * apart
    weight = torch.ones_like(squared_distance) if pair_weight is None else pair_weight[y1, y2]
    same_class = y1 == y2
    alignment = torch.where(same_class, weight * squared_distance, 0)
    separation = torch.where(same_class, 0, weight * (margin - distance).clamp(min=0).square())
    return alignment, separation


def contrastive_alignment(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    pairs: str = "zipped",
    reduction: str = "mean",
) -> Tensor:
    """``L_CSA`` of equation (8): alignment and separation of all pairs together."""
    alignment, separation = pair_terms(z1, z2, y1, y2, pair_weight, margin, pairs)
    return _reduce(alignment + separation, reduction)


def weighted_ccsa_loss_terms(
    logits1: Tensor,
    logits2: Tensor,
    features1: Tensor,
    features2: Tensor,
    target1: Tensor,
    target2: Tensor,
    class_weight1: Tensor | None = None,
    class_weight2: Tensor | None = None,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    alpha: float = 0.5,
    pairs: str = "zipped",
    reduction: str = "mean",
) -> CCSATerms:
    """The loss and its terms: ``(1 - alpha) (classification1 + classification2) + alpha (alignment + separation)``.

    Equation (1), with the classification loss of equation (2). `weighted_mean` concerns the classification terms.
    """
    classification1 = weighted_cross_entropy(logits1, target1, class_weight1, reduction)
    classification2 = weighted_cross_entropy(logits2, target2, class_weight2, reduction)
    alignment, separation = (
        _reduce(term, reduction)
        for term in pair_terms(features1, features2, target1, target2, pair_weight, margin, pairs)
    )
    loss = (1 - alpha) * (classification1 + classification2) + alpha * (alignment + separation)
    return CCSATerms(loss, classification1, classification2, alignment, separation)


def weighted_ccsa_loss(*args: Tensor, **kwargs: object) -> Tensor:
    """The loss alone; arguments as for :func:`weighted_ccsa_loss_terms`."""
    return weighted_ccsa_loss_terms(*args, **kwargs).loss  # type: ignore[arg-type]
