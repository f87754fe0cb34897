"""The ISIC challenges of 2016 to 2020: tables of ground truth, and tables that add age, sex, site or the lesion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import BAD_TABLE, ISIC_IMAGE, Collection, Record, collect, first_filled
from fastccsa.collections.readers.columns import about, is_about
from fastccsa.collections.readers.files import image_id, index_images, list_files
from fastccsa.collections.readers.onehot import one_hot
from fastccsa.collections.readers.tabular import TABLES, nothing_found, table_or_none
from fastccsa.collections.tables import first_line, read_table
from fastccsa.system.errors import InputError

_IMAGE_COLUMNS = ("image", "image_id", "image_name", "isic_id")
_CLASSES = ("mel", "nv", "bcc", "akiec", "ak", "bkl", "df", "vasc", "scc", "unk")
_SINCE_2018 = {"mel", "nv", "bcc", "bkl", "df", "vasc"}
_OF_2017 = ("melanoma", "seborrheic_keratosis")
_OF_2020 = {"image_name", "diagnosis", "benign_malignant"}
_OF_2016 = {"benign": "benign", "malignant": "malignant", "0": "benign", "1": "malignant"}
_PARTS = ("train", "validation", "test")  # in the names of the tables


def read_challenge(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read the images of one of the challenges for classification.

    Ground truth is recognised by its columns: a table without a header of image and benign or malignant (2016);
    ``melanoma`` and ``seborrheic_keratosis``, both 0 for a nevus (2017); a column per class (2018, 2019); ``diagnosis``
    and ``benign_malignant`` (2020). Other tables with the images' names add what they know, such as the lesion.

    Args:
        folder: contains the tables and the images ``ISIC_*.jpg``, at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Images grouped by patient, else by lesion, else each in its own group. The column ``part`` says which part of
        the challenge the table was for: train, validation or test.

    Raises:
        InputError: there is no such folder, or no usable ground truth in it.
    """
    files = list_files(folder)
    found = Collection()
    records: list[Record] = []
    for path in files:
        if path.suffix.lower() in TABLES:
            try:
                records += _records(path, found)
            except InputError as error:
                found.tables.pop(path, None)
                found.leave_out(BAD_TABLE, str(error))
    if not any(record.diagnoses for record in records):
        what = "ground truth of an ISIC challenge (such as ISIC_2019_Training_GroundTruth.csv)"
        advice = "pass the folder that contains it and the images"
        raise nothing_found(folder, what, advice, files, Collection(left_out=found.left_out))
    collection = collect(records, index_images(files), labels or LabelMaps.read().of("challenge"), ISIC_IMAGE)
    collection.left_out += found.left_out
    collection.tables |= found.tables
    return collection


def _records(path: Path, found: Collection) -> list[Record]:
    """Return the records of a table; none if it is not about the images of a challenge."""
    first = first_line(path)
    if len(first) == 2 and ISIC_IMAGE.fullmatch(image_id(first[0])):
        return _without_header(path, found)
    columns = {" ".join(name.lower().split()) for name in first}
    image = next((name for name in _IMAGE_COLUMNS if name in columns), None)
    if image is None:
        return []
    known = {"patient_id", "lesion_id"}
    of_2017 = columns >= {*_OF_2017}
    truth = of_2017 or columns >= _SINCE_2018 or columns >= _OF_2020
    if not truth and not any(name in known or is_about(name) for name in columns):
        return []

    def is_read(name: str) -> bool:
        return name in (image, "diagnosis", *known, *_CLASSES, *_OF_2017) or is_about(name)

    table = table_or_none(path, is_read, found)
    if table is None:
        return []
    rows: Iterator[tuple[Mapping[str, str], tuple[str, ...]]]
    if of_2017:
        # Neither of the two is the challenge's third diagnosis.
        rows = ((row, _spaced(marked) or ("nevus",)) for row, marked in one_hot(path, table, _OF_2017))
    elif columns >= _SINCE_2018:
        rows = one_hot(path, table, _CLASSES)
    elif columns >= _OF_2020:
        rows = ((row, (row["diagnosis"],)) for row in table.rows)
    else:
        rows = ((row, ()) for row in table.rows)
    part = _part(path) if truth else {}
    return [_record(row, row[image], diagnoses, path, part) for row, diagnoses in rows]


def _record(
    row: Mapping[str, str], image: str, diagnoses: tuple[str, ...], path: Path, part: Mapping[str, str]
) -> Record:
    name = image_id(image)
    patient, lesion = (first_filled(row.get(column, "")) for column in ("patient_id", "lesion_id"))
    return Record(name, diagnoses, patient or lesion or name, patient, lesion, {**about(row), **part}, path)


def _without_header(path: Path, found: Collection) -> list[Record]:
    """Read the ground truth of 2016: image and "benign" or "malignant", or 0.0 or 1.0 in that of the test images."""
    table = read_table(path, columns=("image", "truth"))
    found.tables[path] = len(table.rows)
    records = []
    for row in table.rows:
        truth = row["truth"].strip().lower()
        diagnosis = _OF_2016.get(truth.removesuffix(".0"), truth)
        records.append(_record({}, row["image"], (diagnosis,), path, _part(path)))
    return records


def _spaced(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name in names)


def _part(path: Path) -> dict[str, str]:
    found = re.search("|".join(_PARTS), path.stem.lower())
    return {"part": found[0]} if found else {}
