"""pytorch-metric-learning's contrastive loss, as a rival: its two terms squared."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fastccsa.benchmarking.contestants import CannotExpress

__all__ = ["squared_contrastive_loss"]


def squared_contrastive_loss(margin: float) -> Any:
    """Make the sum of ``d^2`` over pairs of one class and of ``max(0, margin - d)^2`` over the others.

    Raises:
        CannotExpress: the package is not installed.
    """
    try:
        from pytorch_metric_learning.distances import LpDistance
        from pytorch_metric_learning.losses import ContrastiveLoss
        from pytorch_metric_learning.reducers import SumReducer
    except ImportError as error:
        raise CannotExpress("not installed: pip install pytorch-metric-learning") from error

    class SquaredContrastiveLoss(ContrastiveLoss):  # type: ignore[misc]
        """Its loss is linear in the distance; these are the methods it lets a subclass replace."""

        def pos_calc(self, distance: Tensor, margin: float) -> Tensor:
            return super().pos_calc(distance, margin).square()

        def neg_calc(self, distance: Tensor, margin: float) -> Tensor:
            return super().neg_calc(distance, margin).square()

    options: dict[str, Any] = {"distance": LpDistance(normalize_embeddings=False), "reducer": SumReducer()}
    return SquaredContrastiveLoss(pos_margin=0, neg_margin=margin, **options)
