"""Derm7pt: a table of cases, each with a clinical and a dermoscopic image."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import NO_FILE, Collection, Record, collect, first_filled
from fastccsa.collections.readers.columns import about, is_about
from fastccsa.collections.readers.files import IMAGE_EXTENSIONS, list_files
from fastccsa.collections.readers.tabular import nothing_found, table_or_none
from fastccsa.collections.tables import column_names

_COLUMNS = ("diagnosis", "clinic", "derm")
_KINDS = {"clinic": "clinical", "derm": "dermoscopic"}  # the columns that name an image, and its type
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
    found = Collection()
    records: list[Record] = []
    for path in files:
        if path.suffix.lower() == ".csv" and set(_COLUMNS) <= set(column_names(path)):
            records += _records(path, found)
    if not found.tables:
        what = f"table of cases (meta.csv, with the columns {', '.join(_COLUMNS)})"
        raise nothing_found(folder, what, "pass Derm7pt's folder release_v0", files, found)
    collection = collect(records, _index(files), labels or LabelMaps.read().of("derm7pt"), _ANY)
    collection.left_out += found.left_out
    collection.tables |= found.tables
    return collection


def _records(path: Path, found: Collection) -> Iterator[Record]:
    """Yield two records for each case of a table."""
    table = table_or_none(path, lambda name: name in (*_COLUMNS, "case_num") or is_about(name), found)
    for number, row in enumerate(table.rows if table else (), start=1):
        case = f"D7P_{first_filled(row.get('case_num', ''), f'row{number}')}"
        known = about(row)
        for kind, image_type in _KINDS.items():
            if first_filled(row[kind]):
                more = known | {"image_type": image_type}
                yield Record(_key(row[kind]), (row["diagnosis"],), case, about=more, table=path)
            else:
                found.leave_out(NO_FILE, f"{case} {kind}")


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
