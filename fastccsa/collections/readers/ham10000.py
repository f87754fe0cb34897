"""HAM10000: a table of metadata, and 10015 images in one or two folders."""

from __future__ import annotations

from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import ISIC_IMAGE, Collection, Record, collect, first_filled
from fastccsa.collections.readers.files import image_id, index_images, list_files
from fastccsa.collections.tables import read_table
from fastccsa.system.errors import InputError

_METADATA = "ham10000_metadata"
_EXTENSIONS = {"", ".csv", ".tab"}  # Harvard Dataverse offers the table without an extension and as .tab
_COLUMNS = ("lesion_id", "image_id", "dx")


def read_ham10000(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read HAM10000 as published by Harvard Dataverse and its mirrors.

    Args:
        folder: contains ``HAM10000_metadata.csv`` (or ``HAM10000_metadata``) and the images ``ISIC_*.jpg``, at any
            depth.
        labels: the label map; None for the package's own.

    Returns:
        Images grouped by ``lesion_id``, labelled by ``dx``.

    Raises:
        InputError: there is no such folder, no metadata table in it, or the table is not HAM10000's.
    """
    files = list_files(folder)
    metadata = _find_metadata(folder, files)
    table = read_table(metadata)
    missing = [column for column in _COLUMNS if column not in table.columns]
    if missing:
        raise InputError(f"{metadata} has no column {', '.join(missing)}, so it is not HAM10000's; download it again")
    records = []
    for row in table.rows:
        name = image_id(row["image_id"])
        records.append(Record(name, (row["dx"],), first_filled(row["lesion_id"], name)))
    return collect(records, index_images(files), labels or LabelMaps.read().of("ham10000"), ISIC_IMAGE)


def _find_metadata(folder: Path, files: list[Path]) -> Path:
    for path in files:
        if path.stem.lower() == _METADATA and path.suffix.lower() in _EXTENSIONS:
            return path
    raise InputError(
        f"no HAM10000_metadata.csv (or HAM10000_metadata) below {folder}; "
        "pass the folder that contains HAM10000's metadata and images"
    )
