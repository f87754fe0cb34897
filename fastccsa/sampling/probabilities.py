"""The pair sampler's class probabilities, computed in closed form from the counts by domain and class."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]

# Where x2 comes from if the pair is not drawn to match: from the images of other classes, or from those of all classes.
Negatives = Literal["different", "any"]


class PairProbabilities(NamedTuple):
    """The probabilities of the classes of a pair; float64.

    Attributes:
        first: P(y1), ``[C]``.
        second: P(y2), ``[C]``.
        joint: P(y1, y2), ``[C, C]``, y1 along the rows.
    """

    first: Table
    second: Table
    joint: Table


def pair_probabilities(
    counts: NDArray[np.integer], primary: int, match_probability: float, negatives: Negatives
) -> PairProbabilities:
    """Compute the class probabilities of the pairs that :class:`fastccsa.sampling.PairSampler` draws.

    Args:
        counts: images by domain and class, ``[domains, C]``.
        primary: row of the primary domain.
        match_probability: probability that x2 is drawn to have x1's class.
        negatives: ``"different"`` or ``"any"``.

    Returns:
        The tables; the probability of a class or pair that never occurs is exactly 0.
    """
    images = counts.astype(np.float64)
    first = images.sum(axis=0) / images.sum()
    negative = _joint_different if negatives == "different" else _joint_any
    # A match has x1's class, whichever domain it comes from.
    joint: Table = match_probability * np.diag(first) + (1 - match_probability) * negative(images, primary)
    return PairProbabilities(first, joint.sum(axis=0), joint)


def _secondary_domains(counts: Table, primary: int) -> list[tuple[float, Table]]:
    """List the probability and the counts by class of each secondary domain with images."""
    sizes = counts.sum(axis=1)
    total = sizes.sum() - sizes[primary]
    return [
        (sizes[domain] / total, counts[domain])
        for domain in range(len(counts))
        if domain != primary and sizes[domain] > 0
    ]


def _joint_different(counts: Table, primary: int) -> Table:
    """Compute P(y1, y2) of the pairs that are drawn to differ; x1 is never among their candidates."""
    overall = counts.sum(axis=0)
    fallback = np.where(_others(counts[primary])[:, None] > 0, counts[primary], overall)
    joint: Table = np.zeros((len(overall), len(overall)))
    for probability, members in _secondary_domains(counts, primary):
        candidates = np.where(_others(members)[:, None] > 0, members, fallback)  # [y1, y2]
        np.fill_diagonal(candidates, 0)
        number = candidates.sum(axis=1, keepdims=True)
        # Where there is only one class, no pair differs: every pair is then a match.
        joint += probability * np.divide(candidates, number, out=np.zeros_like(joint), where=number > 0)
    joint *= overall[:, None] / overall.sum()
    return joint


def _joint_any(counts: Table, primary: int) -> Table:
    """Compute P(y1, y2) of the pairs whose x2 is any image of the secondary domain except x1."""
    overall = counts.sum(axis=0)
    total = overall.sum()
    joint: Table = np.zeros((len(overall), len(overall)))
    for probability, members in _secondary_domains(counts, primary):
        size = members.sum()
        outside = np.outer((overall - members) / total, members / size)
        inside = members / total  # P(x1 in this domain, y1)
        if size > 1:
            within = (np.outer(inside, members) - np.diag(inside)) / (size - 1)
        else:
            within = np.outer(inside, counts[primary] / counts[primary].sum())
        joint += probability * (outside + within)
    return joint


def _others(members: Table) -> Table:
    """Count the images of the other classes, for each class, ``[C]``."""
    others: Table = members.sum() - members
    return others
