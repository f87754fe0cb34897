"""Distances between the features of two domains, for pairs of the same class and of different classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import pairwise_distances

from fastccsa.evaluation.outputs import Outputs

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairDistances:
    """Euclidean distances between the features of images of different domains, once per pair.

    Attributes:
        same: distances of the pairs of the same class, [k].
        different: distances of the pairs of different classes, [l].
    """

    same: Values
    different: Values


def cross_domain_distances(outputs: Outputs) -> PairDistances:
    """Compute the distance of every pair of ``outputs`` whose domains differ.

    It takes all n(n-1)/2 pairs: pass a part of a large split (see `balanced_part`).
    """
    distances = pairwise_distances(outputs.features.astype(np.float64))
    first, second = np.triu_indices(len(outputs), k=1)
    across = outputs.domains[first] != outputs.domains[second]
    first, second = first[across], second[across]
    same = outputs.targets[first] == outputs.targets[second]
    values = distances[first, second]
    return PairDistances(same=values[same], different=values[~same])


def balanced_part(outputs: Outputs, per_group: int, seed: int = 0) -> Outputs:
    """Return at most ``per_group`` images of each domain and class, drawn with ``seed``, in the original order.

    Otherwise common classes would hide the rare ones in a plot and dominate the distances.
    """
    order = np.random.default_rng(seed).permutation(len(outputs))
    group = outputs.domains[order] * len(outputs.classes) + outputs.targets[order]
    chosen = [order[group == key][:per_group] for key in np.unique(group)]
    return outputs.take(np.sort(np.concatenate(chosen)))
