"""The manifest: a table with the file, label, domain, group and split of every image."""

from __future__ import annotations

import copy
import csv
import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from fastccsa.collections.taxonomy import CLASSES
from fastccsa.collections.text import read_text, separator_of
from fastccsa.collections.validate import COLUMNS, SPLITS, describe_problems, find_problems
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

_SEPARATOR_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs"}
_INTEGER = re.compile(r"[+-]?\d+")

Indices = npt.NDArray[np.int64]


class Manifest:
    """Images with their label, domain, group and split.

    A group contains images that must be in the same split, such as all images of one lesion. White space around labels,
    domains, groups and splits does not count.

    Attributes:
        table: one row per image, with the columns ``image, label, domain, group, split`` (strings) and any others
            in the file. ``image`` is absolute or relative to ``folder``.
        folder: absolute path of the folder that relative image paths start from.
        classes: class names; the integer label of a class is its position here. By default, they are the paper's seven
            classes in its order if these cover all labels, otherwise the sorted labels (integers by their value). A
            subset keeps the classes of the full manifest.
        domains: domain keys in order of first appearance. A subset keeps the domains of the full manifest.

    Raises:
        InputError: ``table`` lacks a column.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        folder: str | os.PathLike[str] = ".",
        classes: Sequence[str] | None = None,
    ) -> None:
        missing = [column for column in COLUMNS if column not in table.columns]
        if missing:
            raise InputError(
                f"the manifest's table lacks the column{'s'[: len(missing) > 1]} {', '.join(missing)}; "
                f"it needs {', '.join(COLUMNS)}"
            )
        table = table.reset_index(drop=True)
        for column in COLUMNS:
            table[column] = table[column].fillna("").astype(str)
            if column != "image":  # the name of a file may end in a space
                table[column] = table[column].str.strip()
        self.table = table
        self.folder = Path(os.path.abspath(folder))
        labels = set(table["label"])
        if classes is None:
            classes = CLASSES if labels <= set(CLASSES) else _in_order(labels)
        self.classes = tuple(classes)
        self.domains = tuple(table["domain"].unique())
        self._source = "the manifest"
        # The line of each row in its file, for messages. A table that has not been written gets its future lines.
        self._lines = np.arange(2, len(table) + 2)

    @classmethod
    def read(
        cls, path: str | os.PathLike[str], classes: Sequence[str] | None = None, check_files: bool = True
    ) -> Manifest:
        """Read a manifest from a CSV file and validate it.

        Args:
            path: the table, with a header; separated by commas, semicolons or tabs.
            classes: the class names; any other label is then an error. None takes them from the file.
            check_files: also check that every image file exists.

        Raises:
            InputError: the file cannot be read, or :meth:`validate` finds problems.
        """
        path = Path(path)
        header, rows, lines = _read_csv(path)
        manifest = cls(pd.DataFrame(rows, columns=header), path.parent, classes)
        manifest._source = str(path)
        manifest._lines = np.asarray(lines)
        manifest.validate(check_files)
        return manifest

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as CSV. The same manifest gives the same bytes.

        Images below the folder of the file get relative paths, so the folder can be moved with its manifest.

        Raises:
            InputError: the file cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            raise InputError(f"cannot write {path}: it is a folder; name a file in it, such as manifest.csv")
        prefix = os.path.join(os.path.abspath(path.parent), "")
        images = [Path(image.removeprefix(prefix)).as_posix() for image in self.paths]
        table = self.table.assign(image=images)
        with (
            write_atomically(path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            table.to_csv(file, index=False, lineterminator="\n")

    def validate(self, check_files: bool = True) -> None:
        """Check the manifest for errors.

        Every field must be filled, each split must be train, validation or test, each label must be among ``classes``,
        no image may be listed twice, no group may be in two splits, and (with ``check_files``) every image file must
        exist.

        Raises:
            InputError: there are problems; the message names the file, their number, and the first ten by line.
        """
        if not len(self):
            raise InputError(f"{self._source} lists no images; it needs one line per image below the header")
        problems = find_problems(self.table, self.classes, self.paths, check_files)
        if problems:
            by_line = [(int(self._lines[row]), what) for row, what in problems]
            raise InputError(describe_problems(self._source, by_line))

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} images, domains {', '.join(self.domains)}, {len(self.classes)} classes)"

    @property
    def labels(self) -> Indices:
        """Class of each image as a position in ``classes``: int64 ``[n]``.

        Raises:
            InputError: a label is not among the classes.
        """
        labels = pd.Index(self.classes).get_indexer(self.table["label"]).astype(np.int64)
        if (labels < 0).any():
            row = int(np.argmax(labels < 0))
            raise InputError(
                f"{self._source}: line {self._lines[row]}: label {self.table['label'].iloc[row]!r} "
                f"is not among the classes {', '.join(self.classes)}"
            )
        return labels

    @property
    def domain_indices(self) -> Indices:
        """Domain of each image as a position in ``domains``: int64 ``[n]``."""
        return pd.Index(self.domains).get_indexer(self.table["domain"]).astype(np.int64)

    @property
    def paths(self) -> list[str]:
        """Absolute path of each image."""
        folder = str(self.folder)
        return [os.path.normpath(os.path.join(folder, image)) for image in self.table["image"]]

    def select(self, split: str | None = None, domains: str | Iterable[str] | None = None) -> Manifest:
        """Return the images of one split, of some domains, or both, in order; the result may be empty.

        Raises:
            InputError: there is no such split or domain.
        """
        keep = np.ones(len(self), dtype=bool)
        if split is not None:
            if split not in SPLITS:
                raise InputError(f"split {split!r} is not one of {', '.join(SPLITS)}")
            keep &= (self.table["split"] == split).to_numpy()
        if domains is not None:
            names = [domains] if isinstance(domains, str) else list(domains)
            for domain in names:
                self._require_domain(domain)
            keep &= self.table["domain"].isin(names).to_numpy()
        return self.take(np.flatnonzero(keep))

    def take(self, indices: npt.ArrayLike) -> Manifest:
        """Return the images at ``indices``, in that order: positions ``[k]``, or a mask ``[n]``."""
        chosen = np.arange(len(self))[np.asarray(indices)]
        part = copy.copy(self)
        part.table = self.table.iloc[chosen].reset_index(drop=True)
        part._lines = self._lines[chosen]
        return part

    def summary(self, split: str | None = None) -> pd.DataFrame:
        """Count the images of one split, or of all, by domain (rows) and class (columns): int64."""
        part = self if split is None else self.select(split)
        counts = np.zeros((len(self.domains), len(self.classes)), dtype=np.int64)
        np.add.at(counts, (part.domain_indices, part.labels), 1)
        return pd.DataFrame(counts, index=list(self.domains), columns=list(self.classes))

    def _require_domain(self, domain: str) -> None:
        if domain not in self.domains:
            raise InputError(f"domain {domain!r} is not in {self._source}, which has {', '.join(self.domains)}")


def _in_order(labels: Iterable[str]) -> list[str]:
    """Return the labels in alphabetical order or, if all are integers, in that of their values."""
    if all(_INTEGER.fullmatch(label) for label in labels):
        return sorted(labels, key=lambda label: (int(label), label))
    return sorted(labels)


def _read_csv(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Return the header, the rows as strings, and the line on which each row ends."""
    try:
        text = read_text(path, "the manifest ")
    except InputError as error:
        if path.is_file():
            raise
        raise InputError(f"{error}; `fastccsa prepare` makes one") from error
    rows: list[list[str]] = []
    lines: list[int] = []
    separator = separator_of(text)
    # Without `strict`, a quote that is never closed would swallow the rows below it.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_header(header, path)
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise InputError(
                    f"{path}: line {reader.line_num} has {len(row)} fields where the header has "
                    f"{len(header)}; put quotes around fields with {_SEPARATOR_NAMES[separator]}"
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file: line {reader.line_num}: {error}; check its quotes") from error
    return header, rows, lines


def _check_header(header: list[str], path: Path) -> None:
    if not header:
        raise InputError(f"{path} is empty; a manifest starts with the line {','.join(COLUMNS)}")
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise InputError(f"{path}: line 1 lacks {', '.join(missing)}; a manifest's header has {','.join(COLUMNS)}")
    repeated = sorted({column for column in header if header.count(column) > 1})
    if repeated:
        raise InputError(f"{path}: line 1 names {', '.join(repeated)} twice; keep one of each")
