"""How strongly the parts of the loss count: its weights, margin, units and shares, chosen together as a recipe.

The cross-entropy is of the order of 1, whatever the network. The pair terms are squared distances: their size depends
on the features and the margin, and on how the weights of pairs are scaled. A recipe chooses all of this consistently.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fastccsa.ops.choices import Pairs
from fastccsa.sampling.probabilities import Negatives, PairProbabilities
from fastccsa.sampling.weights import inverse_probability
from fastccsa.system.choices import check_choice, check_choices
from fastccsa.system.errors import InputError

if TYPE_CHECKING:
    from fastccsa.losses import WeightedCCSALoss

# Which set of defaults: ours, the paper's text as printed, or the code that the paper's authors released.
Recipe = Literal["balanced", "paper", "authors"]

# How weights 1/p are scaled: to an expected weight of 1, to a largest weight of 1, or not at all.
WeightScale = Literal["mean", "max", "plain"]

# What a margin of 1 means: 1 in the units of the features, or the median distance between features at the start.
MarginUnit = Literal["feature", "median"]

# What a squared distance of 1 means: 1 in the units of the features, or the square of the margin.
DistanceUnit = Literal["feature", "margin"]

# What the mean of the weighted cross-entropy divides by: the number of images, or the sum of their weights.
ClassificationReduction = Literal["mean", "weighted_mean"]

_HIGHEST = 10**6  # of a margin and of a cap; float32 can still compute with their squares


@dataclass(frozen=True)
class Balance:
    """How strongly each part of the loss counts.

    Attributes:
        alpha: share of the pair terms in the loss, in [0, 1]; the cross-entropy of both streams has the rest.
        margin: distance beyond which pairs of different classes no longer matter, in units of ``margin_unit``.
        margin_unit: ``"feature"``: that of the features, or of the unit sphere with ``normalize_features``.
            ``"median"``: the median distance between the features of two images of different classes when training
            starts, so that the margin suits every network.
        normalize_features: divide the features by their norm before they are compared. Alignment then cannot shrink or
            inflate them, and the margin means the same for every network. The logits do not change.
        distance_unit: ``"margin"`` divides the pair terms by the square of the margin, so that both are of the order of
            1 and ``alpha`` means the same for every margin; ``"feature"`` does not.
        class_weight_scale: how the weights 1/P(y) are scaled: ``"mean"`` to an expected weight of 1, ``"max"`` to a
            largest weight of 1, ``"plain"`` not at all.
        pair_weight_scale: the same for the weights 1/P(y1, y2).
        pair_weight_cap: largest weight of a pair, in multiples of the expected weight; 0 for no limit. The expected
            weight is unchanged. It bounds the variance that the rarest pairs of classes cause.
        classification_reduction: ``"mean"`` divides the weighted cross-entropy by the number of images,
            ``"weighted_mean"`` by the sum of their weights.
        joint_forward: pass both images of the pairs through the network as one batch, so that the domains share
            BatchNorm's statistics; otherwise as two batches.
        negatives: where the second image of a pair that is not drawn to match comes from; see `fastccsa.PairSampler`.

    Raises:
        InputError: a value is out of range; the message names it.
    """

    alpha: float
    margin: float
    margin_unit: MarginUnit = "feature"
    normalize_features: bool = False
    distance_unit: DistanceUnit = "feature"
    class_weight_scale: WeightScale = "mean"
    pair_weight_scale: WeightScale = "mean"
    pair_weight_cap: float = 0.0
    classification_reduction: ClassificationReduction = "mean"
    joint_forward: bool = True
    negatives: Negatives = "different"

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 <= self.alpha <= 1:
            raise InputError(f"alpha is {self.alpha}: it must lie between 0 and 1")
        if not 0 <= self.margin <= _HIGHEST:
            raise InputError(f"margin is {self.margin}: it must be a number from 0 to {_HIGHEST:,}")
        if self.distance_unit == "margin" and self.margin == 0:
            raise InputError("margin is 0: it cannot be the unit of distances; use distance_unit feature")
        if not (self.pair_weight_cap == 0 or 1 <= self.pair_weight_cap <= _HIGHEST):
            problem = "at least 1" if self.pair_weight_cap < 1 else f"a number up to {_HIGHEST:,}"
            raise InputError(f"pair_weight_cap is {self.pair_weight_cap}: it must be 0 (no limit) or {problem}")

    def class_weight(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the weights of classes with these probabilities, [C]."""
        return _scaled(probability, self.class_weight_scale)

    def pair_weight(self, joint: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute the weights of pairs of classes with the probabilities P(y1, y2), [C, C]."""
        weights = _scaled(joint, self.pair_weight_scale)
        return capped(weights, joint, self.pair_weight_cap) if self.pair_weight_cap else weights

    def loss(
        self,
        probabilities: PairProbabilities,
        *,
        distance: float | None = None,
        pairs: Pairs = "zipped",
        weighted_classes: bool = True,
        weighted_pairs: bool = True,
    ) -> WeightedCCSALoss:
        """Make the loss with this balance; its weights are float32 and on the CPU.

        Args:
            probabilities: what `fastccsa.PairSampler.probabilities` returned for the same ``pairs``.
            distance: the median distance that a margin in units of ``"median"`` refers to, above 0.
            pairs: the pairs that the loss sums over; see `fastccsa.WeightedCCSALoss`.
            weighted_classes: weight the cross-entropy by 1/P(y); otherwise all classes count the same.
            weighted_pairs: weight the pair terms by 1/P(y1, y2); otherwise all pairs count the same.

        Raises:
            InputError: the margin needs a distance, and it is missing or not a positive number.
        """
        import torch

        from fastccsa.losses import WeightedCCSALoss

        def tensor(weight: NDArray[np.float64]) -> torch.Tensor:
            return torch.from_numpy(weight).float()

        first, second, joint = probabilities
        margin = self.margin * self._margin_unit(distance)
        unit = margin**2 if self.distance_unit == "margin" else 1.0
        pair_weight = self.pair_weight(joint) if weighted_pairs else np.ones_like(joint)
        return WeightedCCSALoss(
            class_weight1=tensor(self.class_weight(first)) if weighted_classes else None,
            class_weight2=tensor(self.class_weight(second)) if weighted_classes else None,
            pair_weight=tensor(pair_weight / unit) if weighted_pairs or unit != 1 else None,
            margin=margin,
            alpha=self.alpha,
            pairs=pairs,
            reduction=self.classification_reduction,
            normalize_features=self.normalize_features,
        )

    def _margin_unit(self, distance: float | None) -> float:
        if self.margin_unit == "feature":
            return 1.0
        if distance is None or not 0 < distance < np.inf:
            raise InputError(
                f"distance is {distance}: the margin is a multiple of the median distance between features, so give "
                "distance=fastccsa.median_distance(features1, features2) of your network before training"
            )
        return distance


RECIPES: dict[Recipe, Balance] = {
    "balanced": Balance(alpha=0.5, margin=1.2, margin_unit="median", distance_unit="margin", pair_weight_cap=10.0),
    # Equations 7 and 8 do not scale the weights; section 3 states m, and that the two parts are balanced equally.
    "paper": Balance(alpha=0.5, margin=50.0, class_weight_scale="plain", pair_weight_scale="plain"),
    "authors": Balance(
        alpha=0.1,
        margin=50.0,
        pair_weight_scale="max",
        classification_reduction="weighted_mean",
        joint_forward=False,
        negatives="any",
    ),
}


def balanced_loss(
    probabilities: PairProbabilities,
    distance: float | None = None,
    recipe: Recipe = "balanced",
    pairs: Pairs = "zipped",
    **changes: Any,
) -> WeightedCCSALoss:
    """Make a `fastccsa.WeightedCCSALoss` whose weights, margin and shares fit together.

    Args:
        probabilities: the probabilities of classes and of pairs of classes, from
            `fastccsa.PairSampler.probabilities` for the same ``pairs``.
        distance: the median distance between features of two images before training, from
            `fastccsa.median_distance`; ``"balanced"`` needs it, because its margin is a multiple of it.
        recipe: ``"balanced"``, ``"paper"`` (its text as printed) or ``"authors"`` (their released code); see
            `RECIPES`. The last two also choose pairs and pass them through the network in their own way: see the
            fields ``negatives`` and ``joint_forward`` of `Balance`, which the loss itself does not use.
        pairs: the pairs that the loss sums over.
        changes: other values for fields of `Balance`, such as ``alpha=0.2``.

    Returns:
        The loss; its weights are float32 and on the CPU.

    Raises:
        InputError: an unknown recipe or field, a missing distance, or a value out of range.

    Example:
        >>> import torch, fastccsa
        >>> sampler = fastccsa.PairSampler([0, 1, 0, 1], domains=[0, 0, 1, 1], num_classes=2)
        >>> distance = fastccsa.median_distance(torch.zeros(3, 8), torch.ones(4, 8))
        >>> fastccsa.balanced_loss(sampler.probabilities(), distance, alpha=0.2, margin=2.0).margin
        5.656854152679443
    """
    check_choice("recipe", recipe, get_args(Recipe))
    names = [item.name for item in fields(Balance)]
    for name in changes:
        if name not in names:
            raise InputError(f"{name} is not part of the balance; its fields are {', '.join(names)}")
    return replace(RECIPES[recipe], **changes).loss(probabilities, distance=distance, pairs=pairs)


def capped(weights: NDArray[np.float64], p: NDArray[np.float64], cap: float) -> NDArray[np.float64]:
    """Limit weights to ``cap`` times their expected value under ``p``, which stays the same.

    The weight that the limit takes from the rarest cells goes to all others in proportion to theirs.

    Args:
        weights: [C, C], 0 or more.
        p: the probability of each cell, of the same shape.
        cap: the largest weight, in multiples of the expected weight; at least 1.

    Returns:
        The weights, of the same shape.
    """
    expected = float((p * weights).sum())
    limit = cap * expected
    found = np.minimum(weights, limit)
    for _ in range(found.size):  # raising the others may take one more of them to the limit each time
        free = found < limit
        at_limit = limit * float(p[~free].sum())
        below = float((p * found)[free].sum())
        if below == 0:
            break
        found = np.where(free, found * (expected - at_limit) / below, limit)
        if found.max() <= limit * (1 + 1e-12):
            break
        found = np.minimum(found, limit)
    return np.where(weights > 0, np.minimum(found, limit), 0.0)


def _scaled(p: NDArray[np.float64], scale: WeightScale) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = inverse_probability(p, normalize=None if scale == "plain" else scale)
    return weights
