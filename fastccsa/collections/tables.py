"""Lenient reading of CSV tables, whether written by people or by programs."""

from __future__ import annotations

import csv
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple, TextIO

from fastccsa.system.errors import InputError


class Table(NamedTuple):
    """A table with a header.

    Attributes:
        columns: column names in lower case, with runs of white space (including line breaks) as single spaces.
        rows: the values of each row by column.
        lines: the line of the file on which each row ends.
    """

    columns: list[str]
    rows: list[dict[str, str]]
    lines: list[int]


def read_table(path: Path) -> Table:
    """Read a table separated by commas, semicolons or tabs, in UTF-8 with or without a byte order mark.

    Every value is a string. Missing fields are empty, and empty lines are skipped.

    Raises:
        InputError: the file cannot be read, or is not a table.
    """
    try:
        # utf-8-sig reads files with and without the byte order mark that spreadsheet programs write.
        with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
            separator = _separator(file)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator)
            columns = [" ".join(name.lower().split()) for name in next(reader, [])]
            rows, lines = [], []
            for row in reader:
                if any(value.strip() for value in row):
                    rows.append(dict(zip_longest(columns, row[: len(columns)], fillvalue="")))
                    lines.append(reader.line_num)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except csv.Error as error:
        raise InputError(f"{path} is not a table: {error}; download it again") from error
    return Table(columns, rows, lines)


def _separator(file: TextIO) -> str:
    """Return the separator that splits the header into the most fields."""
    fields: dict[str, int] = {}
    for separator in ",;\t":
        file.seek(0)
        fields[separator] = len(next(csv.reader(file, delimiter=separator), []))
    return max(fields, key=lambda separator: fields[separator])
