"""How far apart the features of two domains are, for pairs of one class and of two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import pairwise_distances

from fastccsa.evaluation.outputs import Outputs

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PairDistances:
    """Euclidean distances between the features of images of different domains, each pair once.

    Attributes:
        same: of the pairs of one class, [k].
        different: of the pairs of two classes, [l].
    """

    same: Values
    different: Values


def cross_domain_distances(outputs: Outputs) -> PairDistances:
    """Measure every pair of ``outputs`` whose domains differ.

    All n(n-1)/2 pairs are looked at: give a part of a large split (see `balanced_part`).
    """
    distances = pairwise_distances(outputs.features.astype(np.float64))
    first, second = np.triu_indices(len(outputs), k=1)
    across = outputs.domains[first] != outputs.domains[second]
    first, second = first[across], second[across]
    same = outputs.targets[first] == outputs.targets[second]
    values = distances[first, second]
    return PairDistances(same=values[same], different=values[~same])


def balanced_part(outputs: Outputs, per_group: int, seed: int = 0) -> Outputs:
    """At most ``per_group`` images of each domain and class, drawn with ``seed``, in their order.

    Common classes would hide the rare ones in a plot, and fill the distances with their own.
    """
    order = np.random.default_rng(seed).permutation(len(outputs))
    group = outputs.domains[order] * len(outputs.classes) + outputs.targets[order]
    chosen = [order[group == key][:per_group] for key in np.unique(group)]
    return outputs.take(np.sort(np.concatenate(chosen)))
