"""From metadata records and image files to the labelled images of a collection."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fastccsa.collections.labels import LEFT_OUT, LabelMap

# Reasons for leaving an image out, beside those that name a diagnosis.
NO_DIAGNOSIS = "no diagnosis"
NO_FILE = "image file missing"
NO_METADATA = "image file not in the metadata"
TWICE = "listed a second time"
AMBIGUOUS = "listed as different classes"
UNREADABLE_IMAGE = "image file cannot be decoded"
PACKED = "archive in the folder is not unpacked"

# How metadata files write that there is no value.
_BLANK = {"", "na", "n/a", "nan", "none", "null"}

# An image of the ISIC archive, as against the masks and heat maps that may lie beside it.
ISIC_IMAGE = re.compile(r"ISIC_\d+")


class Record(NamedTuple):
    """What metadata say of one image.

    Attributes:
        image: the image's id, as :func:`fastccsa.collections.readers.files.image_id` writes it.
        diagnoses: the diagnosis fields as they stand, the most telling first.
        group: what must stay in one split with the image, such as its lesion.
    """

    image: str
    diagnoses: tuple[str, ...]
    group: str


class Row(NamedTuple):
    """One labelled image.

    Attributes:
        image: its file.
        label: its class.
        group: what must stay in one split with it.
        domain: its domain; "" is the collection's own.
        split: the split it was given already; "" leaves that to be drawn.
    """

    image: Path
    label: str
    group: str
    domain: str = ""
    split: str = ""


class LeftOut(NamedTuple):
    """An image, or a piece of metadata, that was left out: why, and its name."""

    reason: str
    name: str


@dataclass
class Collection:
    """The labelled images of one source, and what was left out of it."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def leave_out(self, reason: str, name: str) -> None:
        """Note that something is left out."""
        self.left_out.append(LeftOut(reason, name))

    @property
    def dropped(self) -> Counter[str]:
        """How many were left out for which reason."""
        return Counter(reason for reason, _ in self.left_out)


def collect(
    records: Iterable[Record], images: Mapping[str, Path], labels: LabelMap, expected: re.Pattern[str]
) -> Collection:
    """Join metadata and image files; what cannot be placed is counted and named, never guessed.

    Args:
        records: the metadata.
        images: the file of each image id.
        labels: the collection's label map.
        expected: matches the ids that metadata should list; images with other ids, such as masks, may lie
            there unlisted.
    """
    collection = Collection()
    classified = [(record, *classify(record.diagnoses, labels)) for record in records]
    ambiguous = listed_differently((record.image, label, reason) for record, label, reason in classified)
    listed: set[str] = set()
    for record, label, reason in classified:
        if record.image in listed:
            collection.leave_out(TWICE, record.image)
        elif record.image in ambiguous:
            collection.leave_out(AMBIGUOUS, record.image)
        elif label is None:
            collection.leave_out(reason, record.image)
        elif record.image not in images:
            collection.leave_out(NO_FILE, record.image)
        else:
            collection.rows.append(Row(images[record.image], label, record.group))
        listed.add(record.image)
    for name in sorted(images.keys() - listed):
        if expected.fullmatch(name):
            collection.leave_out(NO_METADATA, name)
    return collection


def classify(diagnoses: Iterable[str], labels: LabelMap) -> tuple[str | None, str]:
    """Return the class that the diagnoses agree on; or None and the reason."""
    filled = [" ".join(diagnosis.split()) for diagnosis in diagnoses if first_filled(diagnosis)]
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
    return None, f"diagnosis {filled[0]!r} is none of the classes"


def listed_differently(classified: Iterable[tuple[Hashable, str | None, str]]) -> set[Hashable]:
    """Return the images whose listings, those with a diagnosis, do not mean the same: none can be taken for right.

    Args:
        classified: image, and its class or the reason why it has none, as :func:`classify` returns them.
    """
    first: dict[Hashable, str] = {}
    meanings = ((image, label or reason) for image, label, reason in classified if reason != NO_DIAGNOSIS)
    return {image for image, meaning in meanings if first.setdefault(image, meaning) != meaning}


def first_filled(*values: str) -> str:
    """Return the first value that is one: not empty, "NaN", "null" or the like; "" where there is none."""
    return next((value.strip() for value in values if value.strip().lower() not in _BLANK), "")
