"""Collections of one or more tables with a row per image: how their tables are recognised and read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastccsa.collections.labels import LabelMap
from fastccsa.collections.readers.collection import (
    BAD_TABLE,
    OTHER_ROW,
    Collection,
    LeftOut,
    Record,
    collect,
    first_filled,
)
from fastccsa.collections.readers.columns import about, is_about
from fastccsa.collections.readers.files import image_id, index_images, list_files
from fastccsa.collections.readers.recognise import other_collection
from fastccsa.collections.tables import Table, column_names, read_table
from fastccsa.system.errors import InputError

TABLES = frozenset({"", ".csv", ".tab", ".tsv", ".txt"})  # endings of tables; Dataverse has some without


@dataclass(frozen=True)
class Layout:
    """A kind of table with a row per image.

    Attributes:
        required: columns by which the table is recognised, in lower case.
        image: the column with the name of the image.
        diagnoses: the columns with diagnoses, the most specific first.
        patient, lesion: the columns with their names; "" if the table does not know them.
        prefix: put before names that are unique in their collection only.
        also: other columns that ``doubt`` looks at.
        doubt: returns the reason why a row must not be used, or "".
    """

    required: tuple[str, ...]
    image: str
    diagnoses: tuple[str, ...]
    patient: str = ""
    lesion: str = ""
    prefix: str = ""
    also: tuple[str, ...] = ()
    doubt: Callable[[Mapping[str, str]], str] | None = None

    def reads(self, name: str) -> bool:
        """Return whether a column is read."""
        named = {*self.required, *self.diagnoses, *self.also, self.patient, self.lesion} - {""}
        return name in named or is_about(name)

    def record(self, row: Mapping[str, str], path: Path) -> Record:
        """Return what a row says about its image."""
        name = image_id(row[self.image])
        patient, lesion = (self._name(row.get(column, "") if column else "") for column in (self.patient, self.lesion))
        diagnoses = tuple(row.get(column, "") for column in self.diagnoses)
        group = patient or lesion or f"{self.prefix}{name}"
        return Record(name, diagnoses, group, patient, lesion, about(row), path)

    def _name(self, value: str) -> str:
        known = first_filled(value)
        return f"{self.prefix}{known}" if known else ""


def read_tables(
    folder: Path,
    layouts: Sequence[Layout],
    labels: LabelMap,
    expected: re.Pattern[str],
    *,
    what: str,
    advice: str,
    stem: str = "",
) -> Collection:
    """Read a collection whose tables have one of the given layouts.

    Args:
        folder: contains the tables and the images, at any depth.
        layouts: the kinds of tables.
        labels: the label map.
        expected: pattern of the ids of the collection's images.
        what, advice: what is looked for and what to pass instead, for the message if there is no table.
        stem: name of the collection's table without extension, in lower case. If there is a usable table of this name,
            others add to it, but no images. One that has none of the layouts is named as unusable.

    Raises:
        InputError: there is no such folder, or no such table in it.
    """
    files = list_files(folder)
    found = Collection()
    records: list[Record] = []
    for path in files:
        if path.suffix.lower() in TABLES:
            layout = _layout_of(path, layouts)
            if layout is not None:
                records += layout_records(path, layout, found)
            elif stem and path.stem.lower() == stem:
                found.leave_out(BAD_TABLE, _why(path, layouts))
    if not records:
        raise nothing_found(folder, what, advice, files, found)
    records = _about_listed(records, stem, found)
    doubted = {name for reason, name in found.left_out if reason not in (BAD_TABLE, OTHER_ROW)}
    images = {name: path for name, path in index_images(files).items() if name not in doubted}
    collection = collect(records, images, labels, expected)
    collection.left_out += found.left_out
    collection.tables |= found.tables
    return collection


def _about_listed(records: list[Record], stem: str, found: Collection) -> list[Record]:
    """Leave out what is not about the images that the collection's own table lists, if it is there."""
    own = {record.table for record in records if record.table is not None and record.table.stem.lower() == stem}
    if not own:
        return records
    listed = {record.image for record in records if record.table in own}
    kept = [record for record in records if record.image in listed]
    used = {record.table for record in kept}
    for path in [path for path in found.tables if path not in used]:
        del found.tables[path]  # a table of other images, such as those of the challenge's test beside HAM10000
    found.left_out += [
        LeftOut(OTHER_ROW, record.image) for record in records if record.image not in listed and record.table in used
    ]
    return kept


def layout_records(path: Path, layout: Layout, found: Collection) -> Iterator[Record]:
    """Yield the records of a table; count its rows, and leave it out if it cannot be read."""
    table = table_or_none(path, layout.reads, found)
    for row in table.rows if table else ():
        if layout.doubt and (reason := layout.doubt(row)):
            found.leave_out(reason, image_id(row[layout.image]))
        else:
            yield layout.record(row, path)


def table_or_none(path: Path, keep: Callable[[str], bool] | None, found: Collection) -> Table | None:
    """Read a table and count its rows, or leave it out and return None if it cannot be read."""
    try:
        table = read_table(path, keep)
    except InputError as error:
        found.leave_out(BAD_TABLE, str(error))
        return None
    found.tables[path] = len(table.rows)
    return table


def nothing_found(folder: Path, what: str, advice: str, files: Iterable[Path], found: Collection) -> InputError:
    """Return the error for a folder without the collection's tables; it names unusable and foreign ones."""
    problems = [name for reason, name in found.left_out if reason == BAD_TABLE]
    if problems:
        return InputError("; ".join(problems))
    if found.tables and not any(found.tables.values()):
        return InputError(f"{', '.join(str(path) for path in found.tables)} lists no image; download it again")
    return InputError(f"no {what} below {folder}; {advice}{other_collection(files)}")


def _layout_of(path: Path, layouts: Sequence[Layout]) -> Layout | None:
    columns = set(column_names(path))
    return next((layout for layout in layouts if columns.issuperset(layout.required)), None)


def _why(path: Path, layouts: Sequence[Layout]) -> str:
    try:
        columns = set(read_table(path).columns)
    except InputError as error:
        return str(error)
    missing = [name for name in layouts[0].required if name not in columns]
    return f"{path} has no column {', '.join(missing)}; download it again"
