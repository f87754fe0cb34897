"""Duplicate images: finding them, and keeping them in one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from fastccsa.collections.fingerprints import FLAT, NOT_COMPUTED, UNREADABLE, Fingerprint, look_bits
from fastccsa.collections.groups import root_of
from fastccsa.collections.near import near_pairs

# In bits of 256. Chosen on 12259 images of HAM10000, UDA, SONIC and MSK: pairs of different lesions up to this
# distance look like near-duplicates, no pair has a distance of 16 to 35, and chance matches begin at 36.
NEAR = 24

Pair = tuple[int, int]  # positions of two images, in ascending order


@dataclass(frozen=True)
class Duplicates:
    """Pairs of duplicate images, by position.

    Attributes:
        exact: pairs with the same bytes: the first copy and each later one.
        near: pairs that look the same but have different bytes; only first copies are compared.
        separated: pairs that cannot be kept in one split, because the given splits separate them.
    """

    exact: list[Pair] = field(default_factory=list)
    near: list[Pair] = field(default_factory=list)
    separated: list[Pair] = field(default_factory=list)


def find_duplicates(prints: Sequence[Fingerprint], limit: int = NEAR) -> Duplicates:
    """Find images with the same bytes, and images that look the same.

    Args:
        prints: fingerprint of each image. Without perceptual hashes, only exact duplicates are found.
        limit: maximum number of differing bits between two perceptual hashes of 256 bits.
    """
    first: dict[str, int] = {}
    exact = []
    for position, (content, _) in enumerate(prints):
        if first.setdefault(content, position) != position:
            exact.append((first[content], position))
    with_look = [p for p in first.values() if prints[p].look not in (UNREADABLE, FLAT, NOT_COMPUTED)]
    near = near_pairs(look_bits([prints[position].look for position in with_look]), limit)
    return Duplicates(exact, [(with_look[i], with_look[j]) for i, j in near])


def unite_groups(table: pd.DataFrame, duplicates: Duplicates) -> tuple[pd.DataFrame, Duplicates]:
    """Merge the groups of duplicates. A merged group gets the alphabetically first of their names.

    Args:
        table: columns ``group`` and ``split``, one row per image. A ``split`` other than "" is given and kept.
        duplicates: duplicates among the table's images.

    Returns:
        The table with the new groups, and the duplicates with ``separated`` filled in.
    """
    groups = table["group"].tolist()
    parent = {group: group for group in groups}
    given = {group: split for group, split in zip(groups, table["split"], strict=True) if split}
    separated = []
    for i, j in sorted(duplicates.exact + duplicates.near):
        kept, joined = sorted((root_of(parent, groups[i]), root_of(parent, groups[j])))
        splits = {given[root] for root in (kept, joined) if root in given}
        if len(splits) > 1:
            separated.append((i, j))
            continue
        parent[joined] = kept
        if splits:
            given[kept] = splits.pop()
    united = table.assign(group=[root_of(parent, group) for group in groups])
    return united, Duplicates(duplicates.exact, duplicates.near, separated)
