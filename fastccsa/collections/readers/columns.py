"""The columns of published tables by which results are broken down, under one name each."""

from __future__ import annotations

import re
from collections.abc import Mapping

from fastccsa.collections.readers.collection import first_filled

# Column of the manifest -> its names in the tables, in lower case. Values are kept as written. The three scales of skin
# are different ones: Fitzpatrick's types 1 to 6, DDI's pairs of them (12, 34, 56), and MILK10k's 0 (dark) to 5.
ABOUT: dict[str, tuple[str, ...]] = {
    "age": ("age", "age_approx", "age_approximate"),
    "sex": ("sex", "gender"),
    "site": ("site", "localization", "location", "region", "anatom_site_general", "anatom_site_general_challenge"),
    "fitzpatrick": ("fitzpatrick_scale", "fitzpatrick_skin_type", "fitspatrick"),
    "skin_tone": ("skin_tone",),
    "skin_tone_class": ("skin_tone_class",),
    "image_type": ("image_type",),
    "confirmed_by": ("dx_type", "diagnosis_confirm_type", "biopsed"),
    "origin": ("dataset",),
}
_COLUMN_OF = {name: column for column, names in ABOUT.items() for name in names}
_WHOLE = re.compile(r"-?\d+\.0")  # whole numbers as pandas writes them in a column with gaps


def is_about(name: str) -> bool:
    """Return whether a table's column of this name is kept in the manifest."""
    return name in _COLUMN_OF


def about(row: Mapping[str, str]) -> dict[str, str]:
    """Return what a row of a table knows, by the columns of the manifest; "" where a column is not filled."""
    known: dict[str, str] = {}
    for name, value in row.items():
        column = _COLUMN_OF.get(name)
        if column is not None:
            known[column] = known.get(column) or _plain(first_filled(value))
    return known


def _plain(value: str) -> str:
    value = " ".join(value.split())
    if _WHOLE.fullmatch(value):
        return value[:-2]
    return "" if value in ("-1", "unknown") else value
