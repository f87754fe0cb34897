"""The adaptive stop: how many channels a layer needs at a threshold.

Zhuang et al. stop when ``|L(t-1) - L(t)| / L(0) <= threshold``, where L(t) is the joint loss with t channels. How many
channels that keeps depends on how far the weights are optimised after each channel. Theirs start from the layer's own
and take some SGD steps, and each channel lowers L by about its share. Ours are the exact minimum: a few channels do
most of the work, each further one adds little, and "fall", the literal condition, ends early, although the small falls
that it leaves out add up. "gap", the default, measures what is left out: the difference from the whole layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from fastccsa.pruning.config import Stop


def kept_by_threshold(stop: Stop, losses: Sequence[float], reconstruction: Sequence[float], threshold: float) -> int:
    """Return the number of channels that a layer keeps.

    Args:
        stop: the condition, see `PruneConfig`.
        losses: the joint loss with none, one, two, ... and all channels.
        reconstruction: the minimum of the reconstruction loss with as many.
        threshold: in (0, 1).
    """
    return kept_by_gap(reconstruction, threshold) if stop == "gap" else kept_by_fall(losses, threshold)


def kept_by_gap(losses: Sequence[float], threshold: float) -> int:
    """Return the first t >= 1 with ``L(t) - L(all) <= threshold * L(0)``; ``losses`` must not rise."""
    enough = losses[-1] + threshold * losses[0]
    return next(count for count, loss in enumerate(losses) if count and loss <= enough)


def kept_by_fall(losses: Sequence[float], threshold: float) -> int:
    """Return the first t at which ``|L(t-1) - L(t)| <= threshold * L(0)``; all channels if there is none."""
    for count, (before, after) in enumerate(pairwise(losses), start=1):
        if abs(before - after) <= threshold * losses[0]:
            return count
    return len(losses) - 1
