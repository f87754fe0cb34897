"""A few images that stand for all: as many as can be of every class of every domain."""

from __future__ import annotations

import numpy as np

from fastccsa.collections.manifest import Manifest


def stratified_subset(manifest: Manifest, count: int, seed: int = 0) -> Manifest:
    """Choose up to ``count`` images, as evenly as can be from every class of every domain.

    The cells of domain and class take turns, each in a seeded order of its own; so a smaller subset is the
    beginning of a larger one.
    """
    cells = manifest.domain_indices * len(manifest.classes) + manifest.labels
    place = np.empty(len(manifest), dtype=np.int64)  # of each image in a seeded order
    place[np.random.default_rng(seed).permutation(len(manifest))] = np.arange(len(manifest))
    turn = np.empty(len(manifest), dtype=np.int64)  # of each image in its cell
    for cell in np.unique(cells):
        here = np.flatnonzero(cells == cell)
        turn[here[np.argsort(place[here])]] = np.arange(len(here))
    return manifest.take(np.lexsort((place, turn))[:count])
