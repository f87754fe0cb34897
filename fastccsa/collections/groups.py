"""Groups of images that must be in one split: a lesion, a patient, or whatever they have in common."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fastccsa.collections.validate import COLUMNS
from fastccsa.system.errors import InputError

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
    for level in levels:
        groups = join_by(groups, table[level].tolist())
    return table.assign(group=groups).drop(columns=[level for level in levels if not table[level].any()])


def group_by(table: pd.DataFrame, sources: Sequence[int], columns: Sequence[str]) -> pd.DataFrame:
    """Merge the groups of images of one source that have a value in common.

    Args:
        table: the manifest's columns but ``split``, as strings; "" where a value is not known.
        sources: number of the source of each image.
        columns: the columns whose values keep images together.

    Raises:
        InputError: there is no such column, or no image has a value of it.
    """
    others = [column for column in table.columns if column not in COLUMNS and table[column].any()]
    for column in columns:
        if column not in others:
            raise InputError(
                f"no source knows the column {column!r} to group by; "
                f"{'choose one of ' + ', '.join(others) if others else 'they know no other column'}"
            )
        values = [f"{source} {value}" if value else "" for source, value in zip(sources, table[column], strict=True)]
        table = table.assign(group=join_by(table["group"].tolist(), values))
    return table


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
