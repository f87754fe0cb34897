"""One-hot tables of ground truth: a column per class, with 1 in that of the image's class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fastccsa.collections.tables import Table
from fastccsa.system.errors import InputError


def one_hot(path: Path, table: Table, classes: Sequence[str]) -> Iterator[tuple[Mapping[str, str], tuple[str, ...]]]:
    """Yield each row with the classes that it marks with 1; empty cells count as 0.

    Raises:
        InputError: a value is neither 0 nor 1, as in tables of predictions, which have the same columns.
    """
    present = [name for name in classes if name in table.columns]
    for line, row in zip(table.lines, table.rows, strict=True):
        yield row, tuple(name for name in present if _is_marked(row[name], name, path, line))


def _is_marked(value: str, name: str, path: Path, line: int) -> bool:
    try:
        number = float(value.strip() or 0)
    except ValueError:
        number = -1.0
    if number not in (0.0, 1.0):
        raise InputError(
            f"{path}: line {line}: {name} is {value.strip()}, neither 0 nor 1, so these are predictions and not the "
            "ground truth; pass the table of ground truth"
        )
    return number == 1.0
