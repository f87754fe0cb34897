"""Dermofit: a list of lesions, and a folder per lesion with an image and its mask."""

from __future__ import annotations

import re
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import BAD_TABLE, Collection, LeftOut, Record, collect
from fastccsa.collections.readers.files import image_id, index_images, list_files
from fastccsa.collections.readers.recognise import other_collection
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
    records: list[Record] = []
    found = Collection()
    for path in _find_lists(folder, files):
        try:
            lesions = _read_list(path, found)
        except InputError as error:
            found.leave_out(BAD_TABLE, str(error))
            continue
        found.tables[path] = len(lesions)
        for name, diagnosis in lesions:
            if name in images and _contradicts(images[name], diagnosis, labels):
                found.leave_out(DISAGREE, name)
                del images[name]
            else:
                records.append(Record(name, (diagnosis,), f"DMF_{name}", table=path))
    if not found.tables:
        raise InputError("; ".join(problem for _, problem in found.left_out))
    collection = collect(records, images, labels, _IMAGE)
    collection.left_out += found.left_out
    collection.tables |= found.tables
    return collection


def _find_lists(folder: Path, files: list[Path]) -> list[Path]:
    lists = [path for path in files if path.name.lower() == _LIST]
    if lists:
        return lists
    hint = other_collection(files)
    raise InputError(
        f"no {_LIST} below {folder}; pass the folder that contains Dermofit's {_LIST} and class folders{hint}"
    )


def _read_list(path: Path, found: Collection) -> list[tuple[str, str]]:
    """Return the id and class of each lesion; lines that cannot be parsed are left out."""
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
    found.left_out += left_out
    return lesions


def _contradicts(image: Path, diagnosis: str, labels: LabelMap) -> bool:
    """Return whether the image is in the folder of another class."""
    folders = [parent.name for parent in image.parents[:2]]
    return any(labels.find(name) and name.upper() != diagnosis.upper() for name in folders)
