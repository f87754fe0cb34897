"""Derm7pt: a table of cases, each with a clinical and a dermoscopic image."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import NO_FILE, Collection, LeftOut, Record, collect, first_filled
from fastccsa.collections.readers.files import IMAGE_EXTENSIONS, list_files
from fastccsa.collections.tables import Table, read_table
from fastccsa.system.errors import InputError

_COLUMNS = ("diagnosis", "clinic", "derm")
_KINDS = ("clinic", "derm")  # the columns that name an image
_ANY = re.compile(r".+", re.DOTALL)


def read_derm7pt(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read Derm7pt as distributed by Simon Fraser University.

    Args:
        folder: contains ``meta/meta.csv`` and ``images/``, at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Two images per case, grouped by case. Files are matched by folder and name, regardless of extension and case.

    Raises:
        InputError: there is no such folder, or no table of cases in it.
    """
    files = list_files(folder)
    table = _find_table(folder, files)
    records: list[Record] = []
    left_out: list[LeftOut] = []
    for number, row in enumerate(table.rows, start=1):
        case = f"D7P_{first_filled(row.get('case_num', ''), f'row{number}')}"
        for kind in _KINDS:
            if first_filled(row[kind]):
                records.append(Record(_key(row[kind]), (row["diagnosis"],), case))
            else:
                left_out.append(LeftOut(NO_FILE, f"{case} {kind}"))
    collection = collect(records, _index(files), labels or LabelMaps.read().of("derm7pt"), _ANY)
    collection.left_out += left_out
    return collection


def _find_table(folder: Path, files: Iterable[Path]) -> Table:
    for path in files:
        if path.suffix.lower() == ".csv":
            table = read_table(path)
            if set(_COLUMNS) <= set(table.columns):
                return table
    raise InputError(
        f"no table of cases (meta.csv, with the columns {', '.join(_COLUMNS)}) below {folder}; "
        "pass Derm7pt's folder release_v0"
    )


def _key(image: str) -> str:
    """Return an image's folder and name in lower case without the extension: ``nel/nel026``."""
    path = PurePosixPath(image.strip().replace("\\", "/").lower())
    return "/".join(path.with_suffix("").parts[-2:])


def _index(files: Iterable[Path]) -> dict[str, Path]:
    index: dict[str, Path] = {}
    for path in files:
        if path.suffix.lower() in IMAGE_EXTENSIONS:
            index.setdefault(_key(path.as_posix()), path)
    return index
