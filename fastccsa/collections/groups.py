"""Groups of images that must be in one split: a lesion, a patient, or whatever they have in common."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

LEVELS = ("patient", "lesion")  # optional columns that say which images belong together


def join_groups(table: pd.DataFrame) -> pd.DataFrame:
    """Merge the groups that have a patient or a lesion in common, so that neither is ever in two splits.

    Args:
        table: columns ``group`` and those of ``LEVELS``, as strings; "" where it is not known.

    Returns:
        The table with the new groups; a merged group gets the alphabetically first of their names. Columns of
        ``LEVELS`` that are empty are dropped.
    """
    groups = table["group"].tolist()
    for level in LEVELS:
        groups = join_by(groups, table[level].tolist())
    table = table.assign(group=groups)
    return table.drop(columns=[level for level in LEVELS if not table[level].any()])


def join_by(groups: Sequence[str], values: Sequence[str]) -> list[str]:
    """Merge the groups that have a value in common.

    Args:
        groups: group of each image.
        values: value of each image; "" where it is not known, which joins nothing.

    Returns:
        The new group of each image; a merged group gets the alphabetically first of their names.
    """
    parent = {group: group for group in groups}
    first: dict[str, str] = {}
    for group, value in zip(groups, values, strict=True):
        if value:
            kept, joined = sorted((root_of(parent, first.setdefault(value, group)), root_of(parent, group)))
            parent[joined] = kept
    return [root_of(parent, group) for group in groups]


def root_of(parent: dict[str, str], group: str) -> str:
    """Return the representative of the merged group that ``group`` belongs to (union-find with path halving)."""
    while parent[group] != group:
        parent[group] = parent[parent[group]]
        group = parent[group]
    return group
