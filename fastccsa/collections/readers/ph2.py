"""PH2: 200 images, each in its own folder, labelled in a spreadsheet or a text table."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import BAD_TABLE, Collection, Record, classify, collect
from fastccsa.collections.readers.files import image_id, index_images, list_files
from fastccsa.collections.readers.recognise import other_collection
from fastccsa.collections.text import read_text
from fastccsa.system.errors import InputError

_NAME = re.compile(r"IMD\d+")
_DIAGNOSES = ("common nevus", "atypical nevus", "melanoma")  # spreadsheet columns; codes 0, 1, 2 in the text table

_TABLES = (".txt", ".xlsx")
_LARGEST = 1 << 25  # bytes of an unpacked spreadsheet; PH2's has some 200,000

Grid = Iterable[Sequence[str]]


def read_ph2(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read PH2 as distributed by the ADDI project.

    Args:
        folder: contains ``PH2_dataset.txt`` or ``PH2_dataset.xlsx`` and images ``IMD003.bmp``, at any depth. If both
            are there, the images must have the same class in both, and one table adds those that the other lacks.
        labels: the label map; None for the package's own.

    Returns:
        Images, each in its own group, labelled by the clinical diagnosis.

    Raises:
        InputError: there is no such folder, neither table is in it, or none of them is PH2's.
    """
    files = list_files(folder)
    labels = labels or LabelMaps.read().of("ph2")
    records: list[Record] = []
    found = Collection()
    told: set[tuple[str, str | None]] = set()  # images and classes of the tables before
    for path in _find_tables(folder, files):
        try:
            more = _records(path)
        except InputError as error:
            found.leave_out(BAD_TABLE, str(error))
            continue
        found.tables[path] = len(more)
        meanings = [(record.image, classify(record.diagnoses, labels)[0]) for record in more]
        records += [record for record, meaning in zip(more, meanings, strict=True) if meaning not in told]
        told |= set(meanings)
    if not records:
        raise InputError("; ".join(problem for _, problem in found.left_out))
    collection = collect(records, index_images(files), labels, _NAME)
    collection.left_out += found.left_out
    collection.tables |= found.tables
    return collection


def _records(path: Path) -> list[Record]:
    records = _from_text(path) if path.suffix.lower() == ".txt" else _from_spreadsheet(path)
    if not records:
        raise InputError(f"{path} lists no image such as IMD003, so it is not PH2's; download it again")
    return records


def _find_tables(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return the tables that may be PH2's, in the order in which they are tried."""
    tables = [path for path in files if path.stem.lower() == "ph2_dataset" and path.suffix.lower() in _TABLES]
    if tables:
        return sorted(tables, key=lambda path: _TABLES.index(path.suffix.lower()))
    hint = other_collection(files)
    raise InputError(
        f"no PH2_dataset.txt or PH2_dataset.xlsx below {folder}; pass the folder that contains PH2's table and "
        f"images{hint}"
    )


def _from_text(path: Path) -> list[Record]:
    """Read ``|| name || histological diagnosis || clinical diagnosis || ...``, with legends after the rows."""
    lines = read_text(path).splitlines()
    grid = (_cells(line.strip().strip("|").split("||")) for line in lines if "||" in line)
    header = _find_header(path, grid, ("name", "clinical diagnosis"))
    records = []
    for name, (code,) in _rows(grid, header["name"], [header["clinical diagnosis"]]):
        known = code in ("0", "1", "2")
        records.append(Record(name, (_DIAGNOSES[int(code)] if known else code,), name, table=path))
    return records


def _from_spreadsheet(path: Path) -> list[Record]:
    """Read the rows below the header ``Image Name, ..., Common Nevus, Atypical Nevus, Melanoma``."""
    grid = _spreadsheet(path)
    header = _find_header(path, grid, ("image name", *_DIAGNOSES))
    columns = [header[diagnosis] for diagnosis in _DIAGNOSES]
    return [
        Record(name, _marked(marks), name, table=path) for name, marks in _rows(grid, header["image name"], columns)
    ]


def _marked(marks: Sequence[str]) -> tuple[str, ...]:
    """Return the diagnoses marked X. If there are other marks, return only those, as text that is in no label map."""
    marked = [(diagnosis, mark) for diagnosis, mark in zip(_DIAGNOSES, marks, strict=True) if mark]
    unknown = tuple(f"{diagnosis} marked {mark}" for diagnosis, mark in marked if mark.upper() != "X")
    return unknown or tuple(diagnosis for diagnosis, _ in marked)


def _spreadsheet(path: Path) -> Iterator[Sequence[str]]:
    # Imported here because it is slow, and only this format needs it.
    from openpyxl import load_workbook
    from openpyxl.utils.exceptions import InvalidFileException

    _check_size(path)
    try:
        # Not read_only, which trusts the size stored in the sheet; some programs write it wrong.
        book = load_workbook(path, data_only=True)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile, InvalidFileException) as error:
        raise InputError(f"{path} is not a spreadsheet ({error}); download it again") from error
    for sheet in book.worksheets:
        for row in sheet.iter_rows(values_only=True):
            yield _cells("" if value is None else str(value) for value in row)


def _check_size(path: Path) -> None:
    """Raise InputError if a spreadsheet is far larger than PH2's, because it would be unpacked in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is not a spreadsheet ({error}); download it again") from error
    usual = all(info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in infos)
    if not usual or sum(info.file_size for info in infos) > _LARGEST:
        raise InputError(f"{path} is larger than any table of PH2; download it again")


def _cells(values: Iterable[str]) -> list[str]:
    """Replace line breaks and runs of spaces in the values by single spaces."""
    return [" ".join(value.split()) for value in values]


def _find_header(path: Path, grid: Iterator[Sequence[str]], names: Sequence[str]) -> dict[str, int]:
    """Return the positions of the columns, and advance ``grid`` to the row below the header."""
    for row in grid:
        lower = [value.lower() for value in row]
        if set(names) <= set(lower):
            return {name: lower.index(name) for name in names}
    raise InputError(f"{path} has no header row with {', '.join(names)}, so it is not PH2's; download it again")


def _rows(grid: Grid, name: int, columns: Sequence[int]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the values of ``columns`` for each row about an image; legends are skipped."""
    for row in grid:
        if len(row) > name and _NAME.fullmatch(image_id(row[name])):
            yield image_id(row[name]), [row[column] if column < len(row) else "" for column in columns]
