"""The loss in plain PyTorch, equation by equation: the readable definition, and the reference of the tests.

Equations are those of the paper (Yoon, Hamarneh and Garbi, MICCAI 2019). Everything here can be differentiated any
number of times, runs on any device and in any floating dtype, and checks nothing. :mod:`fastccsa.functional` has the
same functions, fused and checked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa.losses.terms import CCSATerms, total_loss
from fastccsa.ops.choices import Pairs, Reduction

__all__ = [
    "CCSATerms",
    "contrastive_alignment",
    "pair_terms",
    "weighted_ccsa_loss",
    "weighted_ccsa_loss_terms",
    "weighted_cross_entropy",
]


def _reduce(values: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.mean()


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, class_weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Compute the weighted cross-entropy of equation (7), ``w[y] * CE(logits, y)``.

    Args:
        logits: [N, C].
        target: [N] int64 labels in [0, C).
        class_weight: [C], or None for 1.
        reduction: ``"mean"`` divides by N, ``"weighted_mean"`` by the sum of the weights; ``"sum"``; ``"none"``.

    Returns:
        A scalar, or [N] with ``reduction="none"``; in the dtype of the logits.
    """
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
    pairs: Pairs = "zipped",
) -> tuple[Tensor, Tensor]:
    """Compute alignment (equation 5) and separation (equation 6) of each pair, weighted as in equation (8).

    Args:
        z1: [N1, D] features of the first stream.
        z2: [N2, D] features of the second; N2 is N1 for zipped pairs.
        y1: [N1] int64 labels.
        y2: [N2] int64 labels.
        pair_weight: [C, C], rows by ``y1`` and columns by ``y2``, or None for 1.
        margin: distance beyond which pairs of different classes no longer matter.
        pairs: ``"zipped"``: row i with row i. ``"all"``: every row of ``z1`` with every row of ``z2``.

    Returns:
        ``(alignment, separation)``: [N1] each for zipped pairs, [N1, N2] for all.
    """
    if pairs == "all":
        z1, z2, y1, y2 = z1[:, None], z2[None], y1[:, None], y2[None]
    squared_distance = (z1 - z2).square().sum(-1)
    # The square root has no gradient at 0; the gradient of the separation is defined as 0 there.
    differs = squared_distance > 0
    distance = torch.where(differs, squared_distance, 1).sqrt() * differs
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
    pairs: Pairs = "zipped",
    reduction: Reduction = "mean",
) -> Tensor:
    """Compute ``L_CSA`` of equation (8): alignment plus separation, over the pairs of :func:`pair_terms`.

    Args: as for :func:`pair_terms`; ``reduction`` is ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or the shape of :func:`pair_terms` with ``reduction="none"``.
    """
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
    pairs: Pairs = "zipped",
    reduction: Reduction = "mean",
) -> CCSATerms:
    """Compute the loss of equation (1) and the terms it is composed of; see :func:`fastccsa.losses.terms.total_loss`.

    Args: as for :func:`fastccsa.functional.weighted_ccsa_loss`. ``"weighted_mean"`` applies to the classification
    terms; the pair terms are then means over the pairs.

    Returns:
        ``(loss, classification1, classification2, alignment, separation)``: scalars, or [N] each with
        ``reduction="none"``.
    """
    classification1 = weighted_cross_entropy(logits1, target1, class_weight1, reduction)
    classification2 = weighted_cross_entropy(logits2, target2, class_weight2, reduction)
    alignment, separation = (
        _reduce(term, reduction)
        for term in pair_terms(features1, features2, target1, target2, pair_weight, margin, pairs)
    )
    loss = total_loss(classification1, classification2, alignment + separation, alpha)
    return CCSATerms(loss, classification1, classification2, alignment, separation)


def weighted_ccsa_loss(*args: Tensor, **kwargs: object) -> Tensor:
    """Compute only the loss of equation (1); arguments as for :func:`weighted_ccsa_loss_terms`."""
    return weighted_ccsa_loss_terms(*args, **kwargs).loss  # type: ignore[arg-type]
