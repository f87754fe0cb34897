"""From metadata records and image files to the labelled images of a collection."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# Reasons for leaving an image out, beside those that name a diagnosis.
NO_DIAGNOSIS = "no diagnosis"
NO_FILE = "image file missing"
NO_METADATA = "image file not in the metadata"
TWICE = "listed a second time"

# How metadata files write that there is no value.
_BLANK = {"", "na", "n/a", "nan", "none", "null"}

# An image of the ISIC archive, as against the masks and heat maps that may lie beside it.
_ISIC_IMAGE = re.compile(r"ISIC_\d+")


class Record(NamedTuple):
    """What metadata say of one image.

    Attributes:
        image: the image's id, as :func:`fastccsa.data.readers.files.image_id` writes it.
        diagnoses: the diagnosis fields as they stand, the most telling first.
        group: what must stay in one split with the image, such as its lesion.
    """

    image: str
    diagnoses: tuple[str, ...]
    group: str


class Row(NamedTuple):
    """One labelled image: its file, its class, and its group."""

    image: Path
    label: str
    group: str


@dataclass
class Collection:
    """The labelled images of one folder, and how many were left out for which reason."""

    rows: list[Row] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def collect(records: Iterable[Record], images: Mapping[str, Path], labels: Mapping[str, str]) -> Collection:
    """Join metadata and image files; what cannot be placed is counted, never guessed.

    Args:
        records: the metadata.
        images: the file of each image id.
        labels: the class of each diagnosis, in lower case; other diagnoses belong to no class.
    """
    collection = Collection()
    listed: set[str] = set()
    for record in records:
        label, reason = _classify(record.diagnoses, labels)
        if record.image in listed:
            collection.dropped[TWICE] += 1
        elif label is None:
            collection.dropped[reason] += 1
        elif record.image not in images:
            collection.dropped[NO_FILE] += 1
        else:
            collection.rows.append(Row(images[record.image], label, record.group))
        listed.add(record.image)
    for name in images.keys() - listed:
        if _ISIC_IMAGE.fullmatch(name):
            collection.dropped[NO_METADATA] += 1
    return collection


def first_filled(*values: str) -> str:
    """Return the first value that is one: not empty, "NaN", "null" or the like; "" where there is none."""
    return next((value.strip() for value in values if value.strip().lower() not in _BLANK), "")


def _classify(diagnoses: Iterable[str], labels: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the class that the diagnoses agree on; or None and the reason."""
    filled = [" ".join(diagnosis.split()) for diagnosis in diagnoses if first_filled(diagnosis)]
    found = {labels[diagnosis.lower()] for diagnosis in filled if diagnosis.lower() in labels}
    if len(found) == 1:
        return found.pop(), ""
    if found:
        return None, f"diagnoses disagree ({', '.join(filled)})"
    return None, f"diagnosis {filled[0]!r} is none of the classes" if filled else NO_DIAGNOSIS
