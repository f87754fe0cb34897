"""Finding the files of a collection, whatever folders and endings they came with."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fastccsa.system.errors import InputError

IMAGE_ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})

_REDUCED = "_downsampled"  # what the ISIC archive appends to the names of reduced images


def list_files(folder: Path) -> list[Path]:
    """Return every file below ``folder``, nearest first, then by name; hidden ones are left out.

    Raises:
        InputError: there is no such folder.
    """
    if folder.is_file():
        raise InputError(f"{folder} is neither a folder nor a .zip; unpack it and give the folder")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give the one the collection was unpacked to")
    found: list[Path] = []
    visited: set[str] = set()
    # Links are followed, since large parts often lie on another disk; `visited` ends their circles.
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        # Archives made on a Mac hold a second, hidden file `._name` for each file, in __MACOSX or beside it.
        subfolders[:] = [name for name in subfolders if name != "__MACOSX" and not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: (len(path.parts), str(path)))


def image_id(name: str) -> str:
    """Return the archive's id of an image from its name: no ending, no ``_downsampled``, upper case."""
    stem, ending = os.path.splitext(name.strip())
    stem = stem if ending.lower() in IMAGE_ENDINGS else name.strip()
    return stem.upper().removesuffix(_REDUCED.upper())


def index_images(files: Iterable[Path]) -> dict[str, Path]:
    """Return the image file of each id; of several, the one at full size, then the first of ``files``."""
    images = [path for path in files if path.suffix.lower() in IMAGE_ENDINGS]
    images.sort(key=lambda path: path.stem.lower().endswith(_REDUCED))
    index: dict[str, Path] = {}
    for path in images:
        index.setdefault(image_id(path.name), path)
    return index
