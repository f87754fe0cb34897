"""The loss as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastccsa.losses import functional
from fastccsa.losses.reference import CCSATerms
from fastccsa.system.errors import InputError

__all__ = ["CCSATerms", "WeightedCCSALoss"]


class WeightedCCSALoss(nn.Module):
    """The weighted classification and contrastive semantic alignment loss (paper, equations 1, 2 and 5 to 8).

    One fused kernel forward, one backward. Weights become buffers: they move with the module and are saved with it.

    Args:
        class_weight1: [C] weights of the first stream's classes, or None for weight 1.
        class_weight2: [C] weights of the second stream's classes, or None.
        pair_weight: [C, C] weights of the pairs, rows by the first label, or None.
        margin: distance beyond which pairs of different classes no longer matter, in units of the features.
        alpha: share of the pair terms, in [0, 1]; the paper balances both equally.
        pairs: ``"zipped"``: row i with row i; ``"all"``: every row of one stream with every row of the other, whose
            lengths may differ.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"weighted_mean"``;
            see :func:`fastccsa.functional.weighted_ccsa_loss`.
        precision: ``"ieee"``, ``"tf32x3"`` or ``"tf32"``, of the matrix products of ``pairs="all"`` on CUDA.

    Raises:
        InputError: a weight that is negative, not finite or of the wrong shape, a margin below 0, ``alpha`` outside
            [0, 1], an unknown ``pairs``, ``reduction`` or ``precision``.

    Example:
        >>> import torch, fastccsa
        >>> loss_fn = fastccsa.WeightedCCSALoss(class_weight1=torch.ones(7), margin=50.0)
        >>> logits, features = torch.zeros(4, 7), torch.zeros(4, 512, requires_grad=True)
        >>> target = torch.tensor([0, 1, 2, 3])
        >>> loss_fn(logits, logits, features, features, target, target).shape
        torch.Size([])
    """

    class_weight1: Tensor | None
    class_weight2: Tensor | None
    pair_weight: Tensor | None

    def __init__(
        self,
        class_weight1: Tensor | None = None,
        class_weight2: Tensor | None = None,
        pair_weight: Tensor | None = None,
        margin: float = 50.0,
        alpha: float = 0.5,
        pairs: str = "zipped",
        reduction: str = "mean",
        precision: str = "ieee",
    ) -> None:
        super().__init__()
        self.register_buffer("class_weight1", _checked("class_weight1", class_weight1, dim=1))
        self.register_buffer("class_weight2", _checked("class_weight2", class_weight2, dim=1))
        self.register_buffer("pair_weight", _checked("pair_weight", pair_weight, dim=2))
        if not margin >= 0:
            raise InputError(f"margin is {margin}; it is a distance, so it must be 0 or more")
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha is {alpha}; it is a share, so it must be in [0, 1]")
        functional._check_pairs(pairs, reduction, precision)
        self.margin = float(margin)
        self.alpha = float(alpha)
        self.pairs = pairs
        self.reduction = reduction
        self.precision = precision

    def forward(
        self,
        logits1: Tensor,
        logits2: Tensor,
        features1: Tensor,
        features2: Tensor,
        target1: Tensor,
        target2: Tensor,
    ) -> Tensor:
        """Return the loss: a scalar, or [N] without a reduction.

        Args:
            logits1: [N, C].
            logits2: [N, C].
            features1: [N, D].
            features2: [N, D].
            target1: [N] int64 labels in [0, C).
            target2: [N] int64 labels in [0, C).

        Raises:
            RuntimeError: see :func:`fastccsa.functional.weighted_ccsa_loss`.
        """
        return functional.weighted_ccsa_loss(
            logits1, logits2, features1, features2, target1, target2,
            self.class_weight1, self.class_weight2, self.pair_weight,
            self.margin, self.alpha, self.pairs, self.reduction, self.precision,
        )  # fmt: skip

    def terms(
        self,
        logits1: Tensor,
        logits2: Tensor,
        features1: Tensor,
        features2: Tensor,
        target1: Tensor,
        target2: Tensor,
    ) -> CCSATerms:
        """The same call, returning ``(loss, classification1, classification2, alignment, separation)``.

        The terms come from the same kernel at no cost, and each is differentiable.
        """
        return functional.weighted_ccsa_loss_terms(
            logits1, logits2, features1, features2, target1, target2,
            self.class_weight1, self.class_weight2, self.pair_weight,
            self.margin, self.alpha, self.pairs, self.reduction, self.precision,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """What distinguishes this loss, for ``print(model)``."""
        weighted = [name for name, _ in self.named_buffers()]
        return (
            f"margin={self.margin:g}, alpha={self.alpha:g}, pairs={self.pairs!r}, reduction={self.reduction!r}, "
            f"weights: {', '.join(weighted) or 'none'}"
        )


def _checked(name: str, weight: Tensor | None, dim: int) -> Tensor | None:
    """A copy of `weight` that is fit to be a buffer."""
    if weight is None:
        return None
    weight = torch.as_tensor(weight).detach()
    weight = weight.clone() if weight.is_floating_point() else weight.to(torch.float32)
    if weight.dim() != dim or (dim == 2 and weight.shape[0] != weight.shape[1]):
        expected = "[C]" if dim == 1 else "[C, C]"
        raise InputError(f"{name} must have shape {expected}, but its shape is {list(weight.shape)}")
    if not bool(((weight >= 0) & weight.isfinite()).all()):
        raise InputError(f"{name} holds a negative or non-finite value; weights must be 0 or more")
    return weight
