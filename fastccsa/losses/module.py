"""The loss as a module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from fastccsa.losses.functional import weighted_ccsa_loss, weighted_ccsa_loss_terms
from fastccsa.losses.terms import CCSATerms, unit_features
from fastccsa.losses.validate import check_options, checked_margin_and_alpha, checked_weight
from fastccsa.ops.choices import Pairs, Precision, Reduction

__all__ = ["WeightedCCSALoss"]

Result = TypeVar("Result")

_loss_and_values = partial(weighted_ccsa_loss_terms, term_gradients=False)


class WeightedCCSALoss(nn.Module):
    """The weighted classification and contrastive semantic alignment loss (paper, equations 1, 2 and 5 to 8).

    One fused kernel computes the forward pass, one the backward pass. The weights become buffers: they move with the
    module and are saved with it; ``half()`` and ``bfloat16()`` leave them in float32.

    The defaults of ``margin`` and ``alpha`` are the paper's, for features of a network with ImageNet weights. Where
    distances between features are much smaller than the margin, the pair terms outweigh the classification several
    hundred times. :func:`fastccsa.balanced_loss` makes this module with weights, a margin and a share that fit any
    network; use that unless you have reasons of your own.

    Args:
        class_weight1: [C] weights of the first stream's classes, 0 or more; None is 1 for each.
        class_weight2: [C] weights of the second stream's classes, as for the first.
        pair_weight: [C, C] weights of pairs of classes, 0 or more, rows by the first label; None is 1 for each.
        margin: distance beyond which pairs of different classes no longer matter, in units of the features.
        alpha: share of the pair terms, in [0, 1]; the paper balances both halves equally.
        pairs: ``"zipped"``: row i with row i; ``"all"``: every row of the first stream with every row of the second,
            which may then have different lengths.
        reduction: ``"mean"``, ``"sum"``, ``"none"`` or ``"weighted_mean"``;
            see :func:`fastccsa.functional.weighted_ccsa_loss`.
        precision: ``"ieee"``, ``"bf16x3"`` or ``"tf32"``: how CUDA multiplies float32 features with ``pairs="all"``;
            see the same function.
        normalize_features: divide each row of features by its Euclidean norm first, in float32 or better; distances are
            then at most 2, and the loss cannot change the scale of the features.

    Raises:
        InputError: a weight that is negative, not finite or of the wrong shape; a margin below 0; ``alpha`` outside
            [0, 1]; an unknown ``pairs``, ``reduction`` or ``precision``, or values that cannot be combined.

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
        pairs: Pairs = "zipped",
        reduction: Reduction = "mean",
        precision: Precision = "ieee",
        normalize_features: bool = False,
    ) -> None:
        super().__init__()
        self.register_buffer("class_weight1", checked_weight("class_weight1", class_weight1, dim=1))
        self.register_buffer("class_weight2", checked_weight("class_weight2", class_weight2, dim=1))
        self.register_buffer("pair_weight", checked_weight("pair_weight", pair_weight, dim=2))
        check_options(pairs, reduction, precision)
        self.margin, self.alpha = checked_margin_and_alpha(margin, alpha)
        self.pairs: Pairs = pairs
        self.reduction: Reduction = reduction
        self.precision: Precision = precision
        self.normalize_features = bool(normalize_features)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> WeightedCCSALoss:
        """Move the weights, but keep their precision: they are constants, and float16 ends at 65504."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, weight in before.items():
            moved = self._buffers[name]
            if weight is not None and moved is not None and torch.finfo(moved.dtype).bits < 32:
                self._buffers[name] = weight.to(moved.device)
        return self

    def forward(
        self,
        logits1: Tensor,
        logits2: Tensor,
        features1: Tensor,
        features2: Tensor,
        target1: Tensor,
        target2: Tensor,
    ) -> Tensor:
        """Compute the loss.

        Args:
            logits1: [N, C], float64, float32, bfloat16 or float16.
            logits2: [N, C], in the dtype of ``logits1``, like the features.
            features1: [N, D]; [N1, D] with ``pairs="all"``, whose logits and targets have N1 rows too.
            features2: [N, D]; [N2, D] with ``pairs="all"``, likewise.
            target1: [N] int64 labels in [0, C).
            target2: [N] int64 labels in [0, C).

        Returns:
            A scalar, or [N] with ``reduction="none"``; float32, or float64 for float64 inputs.

        Raises:
            RuntimeError: see :func:`fastccsa.functional.weighted_ccsa_loss`.
        """
        return self._call(weighted_ccsa_loss, logits1, logits2, features1, features2, target1, target2)

    def terms(
        self,
        logits1: Tensor,
        logits2: Tensor,
        features1: Tensor,
        features2: Tensor,
        target1: Tensor,
        target2: Tensor,
        term_gradients: bool = True,
    ) -> CCSATerms:
        """Compute the loss and its terms: ``(loss, classification1, classification2, alignment, separation)``.

        For zipped pairs, the same kernel computes them at no extra cost. Each is differentiable, but without
        ``term_gradients`` not alignment and separation over all pairs: the loss's gradients then take half the memory.
        Other args, and errors: as for :meth:`forward`.
        """
        function = weighted_ccsa_loss_terms if term_gradients else _loss_and_values
        return self._call(function, logits1, logits2, features1, features2, target1, target2)

    def _call(
        self,
        function: Callable[..., Result],
        logits1: Tensor,
        logits2: Tensor,
        features1: Tensor,
        features2: Tensor,
        *targets: Tensor,
    ) -> Result:
        """Call a function of `fastccsa.functional` with this module's weights and options."""
        weights = self._buffers  # faster than attributes, each of which takes half a microsecond
        if self.normalize_features:
            features1, features2 = unit_features(features1), unit_features(features2)
            logits1, logits2 = logits1.to(features1.dtype), logits2.to(features2.dtype)  # one dtype for all
        return function(
            logits1,
            logits2,
            features1,
            features2,
            *targets,
            class_weight1=weights["class_weight1"],
            class_weight2=weights["class_weight2"],
            pair_weight=weights["pair_weight"],
            margin=self.margin,
            alpha=self.alpha,
            pairs=self.pairs,
            reduction=self.reduction,
            precision=self.precision,
        )

    def extra_repr(self) -> str:
        """Return the options and the names of the weights, for ``print(model)``."""
        weighted = [name for name, _ in self.named_buffers()]
        return (
            f"margin={self.margin:g}, alpha={self.alpha:g}, pairs={self.pairs!r}, reduction={self.reduction!r}, "
            + "normalize_features=True, " * self.normalize_features
            + f"weights: {', '.join(weighted) or 'none'}"
        )
