"""Finding the files of a collection, regardless of folder layout and file extensions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from fastccsa.collections.readers.collection import BAD_NAME, DANGLING, NO_REGULAR_FILE, UNLISTED, LeftOut
from fastccsa.formats.dicom import is_dicom
from fastccsa.formats.files import open_regular
from fastccsa.formats.table import EXTENSIONS
from fastccsa.system.errors import InputError
from fastccsa.system.text import printable

# Formats that are read. Whether the decoder is installed is found when a file is opened.
IMAGE_EXTENSIONS = EXTENSIONS
# Images that no decoder of this package reads.
FOREIGN_EXTENSIONS = frozenset(
    {".jxl", ".nii", ".svs", ".ndpi", ".czi", ".cr2", ".nef", ".arw", ".dng", ".eps", ".ps", ".psd", ".svg"}
)

_DICOM_HEADER = 132  # bytes of the preamble and the mark

_REDUCED = "_downsampled"  # suffix of the names of reduced images in the ISIC archive


class Survey(NamedTuple):
    """What is below a folder: the files by depth, then by name; and what cannot be used as one, with the reason."""

    files: list[Path]
    left_out: list[LeftOut]


def survey(folder: Path) -> Survey:
    """Find everything below ``folder``, except hidden files and folders.

    Raises:
        InputError: there is no such folder.
    """
    if folder.is_file():
        raise InputError(f"{folder} is neither a folder nor a .zip; unpack it and pass the folder")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; pass the one the collection was unpacked to")
    found: list[Path] = []
    left_out: list[LeftOut] = []

    def leave_out(reason: str, path: str | os.PathLike[str]) -> None:
        left_out.append(LeftOut(reason, printable(os.path.relpath(path, folder))))

    def unlisted(error: OSError) -> None:
        leave_out(f"{UNLISTED} ({error.strerror})", error.filename)

    visited: set[str] = set()
    # Links are followed, because large parts are often on another disk; `visited` ends cycles.
    for parent, subfolders, names in os.walk(folder, followlinks=True, onerror=unlisted):
        real = os.path.realpath(parent)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        # Archives made on a Mac have a hidden file `._name` for each file, in __MACOSX or next to it.
        subfolders[:] = [name for name in subfolders if name != "__MACOSX" and not name.startswith(".")]
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if not path.is_file():
                leave_out(NO_REGULAR_FILE if path.exists() else DANGLING, path)
            elif printable(str(path)) != str(path):
                leave_out(BAD_NAME, path)
            else:
                found.append(path)
    found.sort(key=lambda path: (len(path.parts), str(path)))
    return Survey(found, sorted(left_out))


def list_files(folder: Path) -> list[Path]:
    """Return the files that :func:`survey` finds."""
    return survey(folder).files


def is_image(path: Path) -> bool:
    """Return whether a file is an image of a format that is read: by its ending, or as DICOM with any or no ending."""
    extension = path.suffix.lower()
    if extension in IMAGE_EXTENSIONS:
        return True
    if extension in FOREIGN_EXTENSIONS:
        return False
    try:
        with open_regular(path) as file:
            return is_dicom(file.read(_DICOM_HEADER))
    except OSError:
        return False


def image_id(name: str) -> str:
    """Return the id of an image from its file name: upper case, without extension and ``_downsampled``."""
    stem, extension = os.path.splitext(name.strip())
    stem = stem if extension.lower() in IMAGE_EXTENSIONS else name.strip()
    return stem.upper().removesuffix(_REDUCED.upper())


def index_images(files: Iterable[Path]) -> dict[str, Path]:
    """Return the image file of each id. Full-size files take precedence, then the first in ``files``."""
    images = [path for path in files if path.suffix.lower() in IMAGE_EXTENSIONS]
    images.sort(key=lambda path: path.stem.lower().endswith(_REDUCED))
    index: dict[str, Path] = {}
    for path in images:
        index.setdefault(image_id(path.name), path)
    return index
