"""Small representative subsets: images of every class of every domain."""

from __future__ import annotations

import numpy as np

from fastccsa.collections.manifest import Manifest


def stratified_subset(manifest: Manifest, count: int, seed: int = 0) -> Manifest:
    """Choose up to ``count`` images, as evenly as possible from every class of every domain.

    The combinations of domain and class take turns, each with its images in a seeded order, so a smaller subset is a
    prefix of a larger one.

    Args:
        manifest: the images to choose from.
        count: maximum number of images.
        seed: seed of the order, 0 or more.
    """
    cells = manifest.domain_indices * len(manifest.classes) + manifest.labels
    rank = np.empty(len(manifest), dtype=np.int64)  # position of each image in a seeded order
    rank[np.random.default_rng(seed).permutation(len(manifest))] = np.arange(len(manifest))
    turn = np.empty(len(manifest), dtype=np.int64)  # position of each image within its cell
    for cell in np.unique(cells):
        members = np.flatnonzero(cells == cell)
        turn[members[np.argsort(rank[members])]] = np.arange(len(members))
    return manifest.take(np.lexsort((rank, turn))[:count])
