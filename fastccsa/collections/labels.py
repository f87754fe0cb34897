"""Label maps: the class of each diagnosis of a collection, in a table that users can view and override."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from fastccsa.collections.tables import read_table
from fastccsa.collections.taxonomy import BINARY, CLASSES
from fastccsa.system.errors import InputError

LEFT_OUT = "-"  # the label of a diagnosis whose images are deliberately left out
OWN = "own"  # the collection name for all of a user's own data

_COLUMNS = ("collection", "diagnosis", "label")


class LabelMap:
    """The class of each diagnosis of one collection.

    Case and spacing are ignored when diagnoses are matched. An entry that ends in ``*`` matches every diagnosis that
    starts with the text before it. An exact entry takes precedence over a prefix, and a longer prefix over a
    shorter one.

    Args:
        labels: class or ``LEFT_OUT`` by diagnosis.
        any_label: treat each diagnosis that is not in the map as a new class.

    Attributes:
        labels: as passed.
    """

    def __init__(self, labels: Mapping[str, str], any_label: bool = False) -> None:
        self.labels = dict(labels)
        entries = {_key(diagnosis): label for diagnosis, label in labels.items()}
        self._exact = {diagnosis: label for diagnosis, label in entries.items() if not diagnosis.endswith("*")}
        prefixes = {diagnosis[:-1]: label for diagnosis, label in entries.items() if diagnosis.endswith("*")}
        self._prefixes = sorted(prefixes.items(), key=lambda entry: -len(entry[0]))
        self._any_label = any_label

    def find(self, diagnosis: str) -> str | None:
        """Return the class, ``LEFT_OUT``, or None if the diagnosis is not in the map."""
        key = _key(diagnosis)
        if key in self._exact:
            return self._exact[key]
        for prefix, label in self._prefixes:
            if key.startswith(prefix):
                return label
        return " ".join(diagnosis.split()) if self._any_label else None


class LabelMaps:
    """The label maps of all collections.

    Attributes:
        labels: by collection, the label of each diagnosis as written in the table.
    """

    def __init__(self, labels: Mapping[str, Mapping[str, str]]) -> None:
        self.labels = {collection: dict(entries) for collection, entries in labels.items()}

    @classmethod
    def read(cls, overrides: str | os.PathLike[str] | None = None) -> LabelMaps:
        """Read the package's maps and apply the rows of a user's table to them.

        Args:
            overrides: CSV with the columns ``collection, diagnosis, label``, as :meth:`to_csv` writes it. It may
                be partial: each row replaces the package's row for the same diagnosis, or adds a new one.

        Raises:
            InputError: the file cannot be read, or a row is invalid; the message names the line.
        """
        built_in = resources.files("fastccsa.collections") / "labels.csv"
        with resources.as_file(built_in) as path:
            labels = _entries(path, collections=None)
        if overrides is not None:
            for collection, entries in _entries(Path(overrides), collections=tuple(labels)).items():
                known = {_key(diagnosis): diagnosis for diagnosis in labels[collection]}
                for diagnosis, label in entries.items():
                    labels[collection][known.get(_key(diagnosis), diagnosis)] = label
        return cls(labels)

    def of(self, collection: str, any_label: bool = False) -> LabelMap:
        """Return the label map of one collection."""
        return LabelMap(self.labels[collection], any_label)

    def to_csv(self) -> str:
        """Return all maps as CSV text that :meth:`read` can read."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for collection, entries in self.labels.items():
            writer.writerows((collection, diagnosis, label) for diagnosis, label in entries.items())
        return text.getvalue()


class _Row(NamedTuple):
    line: int
    collection: str
    diagnosis: str
    label: str


def _entries(path: Path, collections: tuple[str, ...] | None) -> dict[str, dict[str, str]]:
    """Read the labels of a table by collection and diagnosis; ``collections`` are the allowed names, None for any."""
    table = read_table(path)
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing:
        raise InputError(
            f"{path}: line 1 lacks {', '.join(missing)}; a label map needs the columns {','.join(_COLUMNS)} "
            "(fastccsa prepare --show-labels prints one)"
        )
    labels: dict[str, dict[str, str]] = {}
    lines: dict[tuple[str, str], int] = {}
    for line, fields in zip(table.lines, table.rows, strict=True):
        row = _Row(line, *(fields[column].strip() for column in _COLUMNS))
        problem = _problem(row, collections)
        first = lines.setdefault((row.collection, _key(row.diagnosis)), line)
        if not problem and first != line:
            problem = f"{row.diagnosis!r} is already in line {first}; keep one of the two"
        if problem:
            raise InputError(f"{path}: line {line}: {problem}")
        labels.setdefault(row.collection, {})[row.diagnosis] = row.label
    return labels


def _problem(row: _Row, collections: tuple[str, ...] | None) -> str:
    """Return what is wrong with a row and how to fix it; "" if it is valid."""
    if collections is not None and row.collection not in collections:
        return f"collection {row.collection!r} is not one of {', '.join(collections)}"
    if not row.diagnosis:
        return "no diagnosis; name the one that the label is for, or delete the line"
    if not row.label:
        return f"no label for {row.diagnosis!r}; give a class, or {LEFT_OUT} to leave its images out"
    classes = (*CLASSES, *BINARY) if row.collection == "challenge" else CLASSES
    if row.label not in (*classes, LEFT_OUT) and row.collection != OWN:
        return f"label {row.label!r} is not one of {', '.join(classes)}, or {LEFT_OUT} to leave the images out"
    return ""


def _key(diagnosis: str) -> str:
    return " ".join(diagnosis.lower().split())
