"""Lenient reading of CSV tables, whether written by people or by programs."""

from __future__ import annotations

import csv
import io
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from fastccsa.collections.text import read_text, separator_of
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


def read_table(path: Path) -> Table:
    """Read a table separated by commas, semicolons or tabs, in an encoding of :func:`read_text`.

    Every value is a string. Missing fields are empty, and empty lines are skipped.

    Raises:
        InputError: the file cannot be read, or is not a table.
    """
    text = read_text(path)
    try:
        # Without `strict`, a quote that is never closed would swallow the rows below it.
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text), strict=True)
        columns = [" ".join(name.lower().split()) for name in next(reader, [])]
        rows, lines, wide = [], [], []
        for row in reader:
            if any(value.strip() for value in row):
                rows.append(dict(zip_longest(columns, row[: len(columns)], fillvalue="")))
                lines.append(reader.line_num)
                if any(value.strip() for value in row[len(columns) :]):
                    wide.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path} is not a table: line {reader.line_num}: {error}; check its quotes") from error
    return Table(columns, rows, lines, wide)
