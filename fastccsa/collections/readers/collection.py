"""Joining metadata records and image files into the labelled images of a collection."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from fastccsa.collections.labels import LEFT_OUT, LabelMap

# Reasons for leaving an image out, in addition to those that name a diagnosis.
NO_DIAGNOSIS = "no diagnosis"
NO_FILE = "image file missing"
NO_METADATA = "image file not in the metadata"
TWICE = "listed a second time"
AMBIGUOUS = "listed as different classes"
UNREADABLE_IMAGE = "image file cannot be decoded"
FILE_UNREADABLE = "image file cannot be read"
PACKED = "archive in the folder is not unpacked"
NO_DECODER = "image of a kind that cannot be decoded here"
DANGLING = "link leads nowhere"
NO_REGULAR_FILE = "neither a file nor a folder"
BAD_NAME = "file name is not UTF-8 or has control characters; rename it"
UNLISTED = "folder cannot be listed"
OTHER_IMAGE = "image file that belongs to no record, such as a mask"
OTHER_FILE = "not an image"
OTHER_ROW = "row about an image that the collection's own table does not list"
OTHER_TABLE = "table that the reader does not use"
BAD_TABLE = "table cannot be used"
WRONG_LABEL = "marked as wrongly labelled by the collection"

# Forms of a missing value in metadata files, in lower case.
_BLANK = {"", "na", "n/a", "nan", "none", "null"}

# The id of an image in the ISIC archive, as opposed to masks and heat maps in the same folder.
ISIC_IMAGE = re.compile(r"ISIC_\d+")

NOTHING: Mapping[str, str] = MappingProxyType({})


class Record(NamedTuple):
    """What one row of a table, or one description, says about an image.

    Attributes:
        image: the image's id in the form of :func:`fastccsa.collections.readers.files.image_id`.
        diagnoses: the diagnosis fields as written, the most specific first.
        group: name of the group of images that must be in one split, such as a lesion.
        patient, lesion: whom and what the image shows; "" if the metadata does not say.
        about: other columns of the manifest, such as age and sex.
        table: the file that the record is from.
    """

    image: str
    diagnoses: tuple[str, ...]
    group: str
    patient: str = ""
    lesion: str = ""
    about: Mapping[str, str] = NOTHING
    table: Path | None = None


class Row(NamedTuple):
    """One labelled image.

    Attributes:
        image: path of the file.
        label: class.
        group: name of the group of images that must be in one split.
        domain: key of the domain; "" for the domain of the collection.
        split: the given split; "" if it has not been drawn yet.
        patient, lesion: whom and what the image shows; "" if it is not known. Groups that share one are merged.
        about: other columns of the manifest, such as age and sex.
    """

    image: Path
    label: str
    group: str
    domain: str = ""
    split: str = ""
    patient: str = ""
    lesion: str = ""
    about: Mapping[str, str] = NOTHING


class LeftOut(NamedTuple):
    """An image or a piece of metadata that was left out: the reason and its name."""

    reason: str
    name: str


@dataclass
class Collection:
    """The labelled images of one source, and what was left out.

    Attributes:
        rows: the images.
        left_out: what was left out, with the reason.
        tables: number of rows of each table and description that was read.
    """

    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    tables: dict[Path, int] = field(default_factory=dict)

    def leave_out(self, reason: str, name: str) -> None:
        """Record that something is left out."""
        self.left_out.append(LeftOut(reason, name))

    @property
    def dropped(self) -> Counter[str]:
        """How many items were left out, by reason."""
        return Counter(reason for reason, _ in self.left_out)


def collect(
    records: Iterable[Record], images: Mapping[str, Path], labels: LabelMap, expected: re.Pattern[str]
) -> Collection:
    """Join metadata and image files. Nothing is guessed: images without a clear label are left out and named.

    Several tables may describe an image. Within a table its diagnoses must agree; between tables only its classes must,
    so that a table in other words does not hide a good one. A table without diagnoses adds what else it knows.

    Args:
        records: the metadata.
        images: the file of each image id.
        labels: the collection's label map.
        expected: pattern of the ids that the metadata should list; other files, such as masks, may be unlisted.
    """
    collection = Collection()
    listings: dict[str, list[Record]] = {}
    for record in records:
        listings.setdefault(record.image, []).append(record)
    for name, listed in listings.items():
        label, reason, repeated = _settle(listed, labels)
        collection.left_out += [LeftOut(TWICE, name)] * repeated
        if label is None:
            collection.leave_out(reason, name)
        elif name not in images:
            collection.leave_out(NO_FILE, name)
        else:
            collection.rows.append(_row(images[name], label, listed))
    for name in sorted(images.keys() - listings.keys()):
        if expected.fullmatch(name):
            collection.leave_out(NO_METADATA, name)
    return collection


def _settle(listed: list[Record], labels: LabelMap) -> tuple[str | None, str, int]:
    """Return the class of an image and "", or None and the reason, and how many of its records repeat others."""
    meanings = [(record.table, *classify(record.diagnoses, labels)) for record in listed]
    told = [meaning for meaning in meanings if meaning[2] != NO_DIAGNOSIS]
    tables = {record.table for record in listed}
    # A table without a diagnosis of the image only adds to the others, but no table should list it twice.
    repeated = len(listed) - len(tables) + max(len({table for table, _, _ in told}) - 1, 0)
    if not told:
        return None, NO_DIAGNOSIS, repeated
    classes = {label for _, label, _ in told if label is not None}
    within = listed_differently((table, label, reason) for table, label, reason in told)
    if len(classes) > 1 or within:
        return None, AMBIGUOUS, repeated
    if classes:
        return classes.pop(), "", repeated
    return None, told[0][2], repeated


def _row(image: Path, label: str, listed: list[Record]) -> Row:
    """Return the row of an image with what its records say; the first that knows something counts."""
    if len(listed) == 1:
        known = listed[0]
        return Row(image, label, known.group, patient=known.patient, lesion=known.lesion, about=known.about)
    patient, lesion = (first_filled(*(getattr(record, level) for record in listed)) for level in ("patient", "lesion"))
    # A table that knows neither patient nor lesion makes each image a group of its own.
    group = next((record.group for record in listed if record.patient or record.lesion), listed[0].group)
    about: dict[str, str] = {}
    for record in listed:
        for column, value in record.about.items():
            about[column] = about.get(column) or value
    return Row(image, label, group, patient=patient, lesion=lesion, about=about)


def classify(diagnoses: Iterable[str], labels: LabelMap, literal: bool = False) -> tuple[str | None, str]:
    """Return the class that the diagnoses agree on and "", or None and the reason why there is none.

    Args:
        diagnoses: the diagnosis fields as written.
        labels: the label map.
        literal: only empty fields are missing values, and "none" or "NA" are diagnoses like others.
    """
    filled = [" ".join(diagnosis.split()) for diagnosis in diagnoses]
    filled = [diagnosis for diagnosis in filled if (diagnosis if literal else first_filled(diagnosis))]
    if not filled:
        return None, NO_DIAGNOSIS
    meanings = {diagnosis: labels.find(diagnosis) for diagnosis in filled}
    for diagnosis, meaning in meanings.items():
        if meaning == LEFT_OUT:
            return None, f"diagnosis {diagnosis!r} is left out by the label map"
    found = {meaning for meaning in meanings.values() if meaning is not None}
    if len(found) == 1:
        return found.pop(), ""
    if found:
        return None, f"diagnoses disagree ({', '.join(filled)})"
    return None, f"diagnosis {filled[0]!r} matches no class"


def listed_differently(classified: Iterable[tuple[Hashable, str | None, str]]) -> set[Hashable]:
    """Return the images that are listed with contradicting diagnoses, so that no listing can be trusted.

    Args:
        classified: image, class and reason of each listing, the latter two as returned by :func:`classify`. Listings
            without a diagnosis do not contradict others.
    """
    first: dict[Hashable, str] = {}
    meanings = ((image, label or reason) for image, label, reason in classified if reason != NO_DIAGNOSIS)
    return {image for image, meaning in meanings if first.setdefault(image, meaning) != meaning}


def first_filled(*values: str) -> str:
    """Return the first value that is not blank ("", "NaN", "null" and the like), stripped; "" if all are."""
    return next((value.strip() for value in values if value.strip().lower() not in _BLANK), "")
