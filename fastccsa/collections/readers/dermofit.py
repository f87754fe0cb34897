"""Dermofit: a list of lesions, and a folder per lesion with an image and its mask."""

from __future__ import annotations

import re
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import Collection, LeftOut, Record, collect
from fastccsa.collections.readers.files import image_id, index_images, list_files
from fastccsa.collections.text import read_text
from fastccsa.system.errors import InputError

UNREADABLE = "line of lesionlist.txt is not NUMBER ID CLASS"
DISAGREE = "lesionlist.txt and the folder name different classes"

_LIST = "lesionlist.txt"
_IMAGE = re.compile(r"(?!.*MASK$).+")  # every <id>.png has its <id>mask.png next to it


def read_dermofit(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read Dermofit as distributed by the University of Edinburgh.

    Args:
        folder: contains ``lesionlist.txt`` (``number id CLASS`` per line, no header) and the images
            ``<class>/<id>/<id>.png``, at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Images, each in its own group.

    Raises:
        InputError: there is no such folder, no list of lesions in it, or no lesion in the list.
    """
    labels = labels or LabelMaps.read().of("dermofit")
    files = list_files(folder)
    images = index_images(path for path in files if _IMAGE.fullmatch(image_id(path.name)))
    lesions, left_out = _read_list(_find_list(folder, files))
    records = []
    for name, diagnosis in lesions:
        if name in images and _contradicts(images[name], diagnosis, labels):
            left_out.append(LeftOut(DISAGREE, name))
            del images[name]
        else:
            records.append(Record(name, (diagnosis,), f"DMF_{name}"))
    collection = collect(records, images, labels, _IMAGE)
    collection.left_out += left_out
    return collection


def _find_list(folder: Path, files: list[Path]) -> Path:
    for path in files:
        if path.name.lower() == _LIST:
            return path
    raise InputError(f"no {_LIST} below {folder}; pass the folder that contains Dermofit's {_LIST} and class folders")


def _read_list(path: Path) -> tuple[list[tuple[str, str]], list[LeftOut]]:
    """Return the id and class of each lesion, and the lines that cannot be parsed."""
    lesions: list[tuple[str, str]] = []
    left_out: list[LeftOut] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = re.split(r"[\s,;]+", line.strip(" \t,;"))
        if len(fields) == 3 and fields[0].isdecimal():
            lesions.append((image_id(fields[1]), fields[2]))
        elif any(fields):
            left_out.append(LeftOut(UNREADABLE, f"line {number}"))
    if not lesions:
        raise InputError(f"{path} lists no lesion; its lines should be NUMBER ID CLASS, for example: 1 A1 ML")
    return lesions, left_out


def _contradicts(image: Path, diagnosis: str, labels: LabelMap) -> bool:
    """Return whether the image is in the folder of another class."""
    folders = [parent.name for parent in image.parents[:2]]
    return any(labels.find(name) and name.upper() != diagnosis.upper() for name in folders)
