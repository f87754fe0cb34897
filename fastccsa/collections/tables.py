"""Lenient reading of CSV tables, whether written by people or by programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from sys import intern
from typing import NamedTuple

from fastccsa.collections.text import read_text, separator_of, start_of_text
from fastccsa.system.errors import InputError


class Table(NamedTuple):
    """A table with a header.

    Attributes:
        columns: column names in lower case, with runs of white space (including line breaks) as single spaces.
        rows: the values of each row by column.
        lines: the line of the file on which each row ends.
        wide: the lines of rows with more values than there are columns; the values in excess are not in ``rows``.
    """

    columns: list[str]
    rows: list[dict[str, str]]
    lines: list[int]
    wide: list[int]


def read_table(path: Path, keep: Callable[[str], bool] | None = None, columns: tuple[str, ...] | None = None) -> Table:
    """Read a table separated by commas, semicolons or tabs, in an encoding of :func:`read_text`.

    Every value is a string. Missing fields are empty, and empty lines are skipped.

    Args:
        path: the file.
        keep: which columns to keep in ``rows``; None for all.
        columns: the column names of a table without a header; None takes them from the first line.

    Raises:
        InputError: the file cannot be read, or is not a table.
    """
    text = read_text(path)
    try:
        # Without `strict`, a quote that is never closed would swallow the rows below it.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text), strict=True)
        names = list(columns) if columns else _names(next(reader, []))
        kept = [(position, name) for position, name in enumerate(names) if keep is None or keep(name)]
        rows, lines, wide = [], [], []
        for row in reader:
            if any(value.strip() for value in row):
                count = len(row)
                # Equal values are stored once: tables of 400,000 rows mostly repeat a few.
                rows.append({name: intern(row[position]) if position < count else "" for position, name in kept})
                lines.append(reader.line_num)
                if any(value.strip() for value in row[len(names) :]):
                    wide.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path} is not a table: line {reader.line_num}: {error}; check its quotes") from error
    return Table(names, rows, lines, wide)


def first_line(path: Path) -> list[str]:
    """Return the fields of a table's first line without reading the rest; empty if it is not text.

    Other programs keep large tables beside the metadata, and reading them in full would cost minutes.
    """
    start = start_of_text(path)
    return next(_fields(start), []) if start else []


def column_names(path: Path) -> list[str]:
    """Return the column names of a table, as in :attr:`Table.columns`, without reading the rest."""
    return _names(first_line(path))


def _names(fields: list[str]) -> list[str]:
    return [" ".join(name.lower().split()) for name in fields]


def _fields(text: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text))
    except csv.Error:  # a field longer than csv's limit: not a header
        return
