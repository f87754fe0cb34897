"""Validation of the rows of a manifest, and the text that describes the problems."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import get_args

import pandas as pd

from fastccsa.collections.choices import Split
from fastccsa.system.text import CONTROL

COLUMNS: tuple[str, ...] = ("image", "label", "domain", "group", "split")
SPLITS: tuple[str, ...] = get_args(Split)

Problem = tuple[int, str]  # row or line, and what is wrong with it

_SHOWN = 10  # problems listed in a message


def find_problems(
    table: pd.DataFrame, classes: Sequence[str], paths: Sequence[str], check_files: bool
) -> list[Problem]:
    """Find the problems in a manifest's table, ordered by row.

    Args:
        table: the columns :data:`COLUMNS`, as strings.
        classes: the allowed labels.
        paths: absolute path of each row's image.
        check_files: also check that the image files exist.
    """
    problems = [
        *_empty_fields(table),
        *_control_characters(table),
        *_unknown_values(table["label"], classes),
        *_unknown_values(table["split"], SPLITS),
        *_repeated_images(paths),
        *_groups_in_two_splits(table),
    ]
    if check_files:
        problems += _missing_files(table["image"], paths)
    return sorted(problems, key=lambda problem: problem[0])


def describe_problems(source: str, problems: Sequence[Problem]) -> str:
    """Describe problems in one line of text: their number, and the first ten with their lines."""
    shown = "; ".join(f"line {line}: {what}" for line, what in problems[:_SHOWN])
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return f"{source}: {count}{shown}{more}"


def _empty_fields(table: pd.DataFrame) -> Iterator[Problem]:
    for column in COLUMNS:
        for row in _rows_where(table[column].str.strip() == ""):
            yield row, f"no {column}"


def _control_characters(table: pd.DataFrame) -> Iterator[Problem]:
    # They could change what a terminal, a log or a page shows, or end a line in a table.
    for column in table.columns:
        for row in _rows_where(table[column].astype(str).str.contains(CONTROL, regex=True)):
            yield row, f"{column} {table[column].iloc[row]!r} has a control character"


def _unknown_values(values: pd.Series, known: Sequence[str]) -> Iterator[Problem]:
    for row in _rows_where(~values.isin([*known, ""])):
        yield row, f"{values.name} {values.iloc[row]!r} is not one of {', '.join(known)}"


def _repeated_images(paths: Sequence[str]) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for row, path in enumerate(paths):
        if first.setdefault(path, row) != row:
            yield row, f"image {path} is listed a second time"


def _groups_in_two_splits(table: pd.DataFrame) -> Iterator[Problem]:
    # This applies across domains too: a lesion used for training in one domain must not be tested in another.
    split_of: dict[str, str] = {}
    for row, (group, split) in enumerate(zip(table["group"], table["split"], strict=True)):
        if group and split and split_of.setdefault(group, split) != split:
            yield row, f"group {group!r} is in {split} here and in {split_of[group]} above"


def _missing_files(images: pd.Series, paths: Sequence[str]) -> Iterator[Problem]:
    for row, (image, path) in enumerate(zip(images, paths, strict=True)):
        if image and not os.path.isfile(path):
            yield row, f"no image file {path}"


def _rows_where(mask: pd.Series) -> list[int]:
    return [int(row) for row in mask.to_numpy().nonzero()[0]]
