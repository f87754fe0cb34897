"""Finding the files of a collection, regardless of folder layout and file extensions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from fastccsa.system.errors import InputError

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})

_REDUCED = "_downsampled"  # suffix of the names of reduced images in the ISIC archive


def list_files(folder: Path) -> list[Path]:
    """List every file below ``folder`` by depth, then by name; hidden files are skipped.

    Raises:
        InputError: there is no such folder.
    """
    if folder.is_file():
        raise InputError(f"{folder} is neither a folder nor a .zip; unpack it and pass the folder")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; pass the one the collection was unpacked to")
    found: list[Path] = []
    visited: set[str] = set()
    # Links are followed, because large parts are often on another disk; `visited` ends cycles.
    for parent, subfolders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in visited:
            subfolders.clear()
            continue
        visited.add(real)
        # Archives made on a Mac have a hidden file `._name` for each file, in __MACOSX or next to it.
        subfolders[:] = [name for name in subfolders if name != "__MACOSX" and not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found, key=lambda path: (len(path.parts), str(path)))


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
