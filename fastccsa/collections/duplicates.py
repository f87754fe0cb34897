"""Images that are there twice: finding them, and keeping them in one split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from fastccsa.collections.fingerprints import BITS, FLAT, NOT_LOOKED_AT, UNREADABLE, Fingerprint, look_bits

# Bits of 256. Among the 12259 images of HAM10000, UDA, SONIC and MSK that this was chosen on, the pairs of
# different lesions up to here are near-duplicates to the eye, there is none from 16 to 35, and chance begins at 36.
NEAR = 24

_BLOCK = 1024

Pair = tuple[int, int]  # positions of two images, the first before the second


@dataclass(frozen=True)
class Duplicates:
    """Pairs of images, by position.

    Attributes:
        exact: the same bytes: every copy, with the first of its kind.
        near: the same look, other bytes: every pair of first copies.
        torn: those pairs that cannot be kept in one split, because the splits that were given part them.
    """

    exact: list[Pair] = field(default_factory=list)
    near: list[Pair] = field(default_factory=list)
    torn: list[Pair] = field(default_factory=list)


def find_duplicates(prints: Sequence[Fingerprint], limit: int = NEAR) -> Duplicates:
    """Return which images are the same by content, and which by look.

    Args:
        prints: of each image. Without looks only exact duplicates are found.
        limit: how many of the 256 bits of two looks may differ.
    """
    first: dict[str, int] = {}
    exact = []
    for position, (content, _) in enumerate(prints):
        if first.setdefault(content, position) != position:
            exact.append((first[content], position))
    with_look = [p for p in first.values() if prints[p].look not in (UNREADABLE, FLAT, NOT_LOOKED_AT)]
    near = _near_pairs([prints[position].look for position in with_look], limit)
    return Duplicates(exact, [(with_look[i], with_look[j]) for i, j in near])


def unite_groups(table: pd.DataFrame, duplicates: Duplicates) -> tuple[pd.DataFrame, Duplicates]:
    """Give duplicates one group, which takes the name that sorts first of theirs.

    Args:
        table: columns ``group`` and ``split``, by position; splits that are not "" are given and stay.
        duplicates: of the table's images.

    Returns:
        The table with its new groups, and the duplicates with those that are torn: given splits part them.
    """
    groups = table["group"].tolist()
    parent = {group: group for group in groups}
    given = {group: split for group, split in zip(groups, table["split"], strict=True) if split}
    torn = []
    for i, j in sorted(duplicates.exact + duplicates.near):
        kept, joined = sorted((_root(parent, groups[i]), _root(parent, groups[j])))
        splits = {given[root] for root in (kept, joined) if root in given}
        if len(splits) > 1:
            torn.append((i, j))
            continue
        parent[joined] = kept
        if splits:
            given[kept] = splits.pop()
    united = table.assign(group=[_root(parent, group) for group in groups])
    return united, Duplicates(duplicates.exact, duplicates.near, torn)


def _near_pairs(looks: Sequence[str], limit: int) -> Iterable[Pair]:
    """Return the pairs of hashes that differ in at most ``limit`` bits.

    All pairs are compared, by a matrix product: with bits written as -1 and 1, two hashes that differ in h of
    256 have the product 256 - 2h. 25 000 images take a few seconds.
    """
    if not looks:
        return []
    signs = look_bits(looks).astype(np.float32) * 2 - 1
    pairs: list[Pair] = []
    for start in range(0, len(signs), _BLOCK):
        products = signs[start : start + _BLOCK] @ signs[start:].T
        first, second = np.nonzero(products >= BITS - 2 * limit)
        later = second > first
        pairs += zip((first[later] + start).tolist(), (second[later] + start).tolist(), strict=True)
    return pairs


def _root(parent: dict[str, str], group: str) -> str:
    """Return the group that stands for all that ``group`` was joined with, shortening the way to it."""
    while parent[group] != group:
        parent[group] = parent[parent[group]]
        group = parent[group]
    return group
