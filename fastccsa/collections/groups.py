"""Groups of images that must be in one split: a lesion, a patient, or whatever they have in common."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

LEVELS = ("patient", "lesion")  # optional columns that say which images belong together


def join_groups(table: pd.DataFrame, levels: Sequence[str] = LEVELS) -> pd.DataFrame:
    """Merge the groups that have a patient or a lesion in common, so that neither is ever in two splits.

    Args:
        table: columns ``group`` and those of ``levels``, as strings; "" where it is not known.
        levels: the columns that say which images belong together.

    Returns:
        The table with the new groups; a merged group gets the alphabetically first of their names. Columns of
        ``levels`` that are empty are dropped.
    """
    groups = table["group"].tolist()
    parent = {group: group for group in groups}
    for level in levels:
        first: dict[str, str] = {}
        for group, name in zip(groups, table[level], strict=True):
            if name:
                kept, joined = sorted((root_of(parent, first.setdefault(name, group)), root_of(parent, group)))
                parent[joined] = kept
    table = table.assign(group=[root_of(parent, group) for group in groups])
    return table.drop(columns=[level for level in levels if not table[level].any()])


def root_of(parent: dict[str, str], group: str) -> str:
    """Return the representative of the merged group that ``group`` belongs to (union-find with path halving)."""
    while parent[group] != group:
        parent[group] = parent[parent[group]]
        group = parent[group]
    return group
