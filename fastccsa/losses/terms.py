"""The terms of the loss, and how the total is composed of them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["CCSATerms", "median_distance", "total_loss", "unit_features"]


class CCSATerms(NamedTuple):
    """The weighted CCSA loss and its four terms: scalars, or [N] each with ``reduction="none"``.

    Attributes:
        loss: the total, :func:`total_loss` of the terms (paper, equations 1 and 2).
        classification1: weighted cross-entropy of the first stream, ``L_C1`` (equation 7).
        classification2: weighted cross-entropy of the second stream, ``L_C2``.
        alignment: weighted squared distances of the pairs of one class (equations 5 and 8).
        separation: weighted squared hinges ``max(0, margin - d)^2`` of the pairs of two classes (equations 6 and 8).
    """

    loss: Tensor
    classification1: Tensor
    classification2: Tensor
    alignment: Tensor
    separation: Tensor


def total_loss(classification1: Tensor, classification2: Tensor, pair_loss: Tensor, alpha: float) -> Tensor:
    """Compose the loss: ``(1 - alpha) (L_C1 + L_C2) + alpha L_CSA`` (paper, equation 1 with the sum of equation 2).

    Args:
        classification1: ``L_C1``, a scalar or [N].
        classification2: ``L_C2``, of the same shape.
        pair_loss: ``L_CSA``, alignment plus separation, of the same shape.
        alpha: share of the pair loss, in [0, 1].

    Returns:
        The loss, of the same shape.
    """
    return (1 - alpha) * (classification1 + classification2) + alpha * pair_loss


def unit_features(features: Tensor) -> Tensor:
    """Divide each row of features [N, D] by its Euclidean norm, in float32 or better; rows of zeros stay zero."""
    return normalize(features.to(torch.promote_types(features.dtype, torch.float32)))


@torch.no_grad()
def median_distance(features1: Tensor, features2: Tensor) -> float:
    """Compute the median Euclidean distance between rows of [N1, D] and rows of [N2, D]; a few hundred rows suffice."""
    promoted = torch.promote_types(features1.dtype, torch.float32)
    return torch.cdist(features1.to(promoted), features2.to(promoted)).median().item()
