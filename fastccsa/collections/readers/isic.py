"""The collections MSK, UDA and SONIC of the ISIC archive, in the layouts of four download tools."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastccsa.collections.groups import LEVELS
from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import (
    BAD_TABLE,
    ISIC_IMAGE,
    Collection,
    LeftOut,
    Record,
    collect,
    first_filled,
)
from fastccsa.collections.readers.files import image_id, index_images, list_files
from fastccsa.collections.tables import read_table
from fastccsa.collections.taxonomy import ISIC_COLLECTIONS
from fastccsa.system.errors import InputError

BROKEN = "description is not valid JSON"

# Descriptions from the downloader script have no extension; they are recognised by name.
_DESCRIPTION = re.compile(r"ISIC_\d+(_downsampled)?", re.IGNORECASE)
_CLINICAL = re.compile(r"^meta(data)?\.clinical\.")  # of the old and of today's API
# The most specific first: of the levels that replaced `diagnosis` in 2025, 5 is the finest.
_DIAGNOSES = ("diagnosis", "diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2", "diagnosis_1")

Fields = dict[str, str]  # the metadata of one image by field: "name", "dataset.name", "diagnosis", ...


def read_isic(folder: Path, domain: str, labels: LabelMap | None = None) -> Collection:
    """Read one domain's images from a download of the ISIC archive.

    Supported layouts, which may be mixed in one folder:

    - isic-cli: ``metadata.csv`` next to the images, with ``diagnosis`` or, since 2025, ``diagnosis_1`` to
      ``diagnosis_5``. It does not name the collection.
    - the archive from the site: ``ISIC-images/metadata.csv`` with ``name``, ``dataset.name`` and
      ``meta.clinical.diagnosis``, and the images in a folder per collection.
    - the API, old or new: a file ``<name>.json`` per image.
    - the downloader script: ``Data/Images/<name>.jpg`` and ``Data/Descriptions/<name>``.

    Args:
        folder: contains metadata and images, at any depth.
        domain: "MSK", "SON" or "UDA". Images of another collection, according to the metadata, are left out.
        labels: the label map; None for the package's own.

    Returns:
        Images grouped by patient, else by lesion, else each in its own group.

    Raises:
        InputError: ``domain`` is not one of these, or there is no ISIC metadata below the folder.
    """
    if domain not in ISIC_COLLECTIONS:
        raise InputError(f"{domain} is not an ISIC domain; choose one of {', '.join(ISIC_COLLECTIONS)}")
    files = list_files(folder)
    images = index_images(files)
    left_out: list[LeftOut] = []
    records: list[Record] = []
    for fields in _metadata(files, left_out):
        record = _record(fields)
        dataset = fields.get("dataset.name", "")
        if _belongs(dataset, domain):
            records.append(record)
        else:
            left_out.append(LeftOut(f"belongs to {dataset}, not to {domain}", record.image))
            images.pop(record.image, None)
    if not records and not left_out:
        raise InputError(
            f"no ISIC metadata below {folder}; looked for a CSV file with the column isic_id or name, "
            "for <name>.json files, and for Descriptions/<name> files"
        )
    collection = collect(records, images, labels or LabelMaps.read().of("isic"), ISIC_IMAGE)
    collection.left_out += left_out
    return collection


def _metadata(files: Sequence[Path], left_out: list[LeftOut]) -> Iterator[Fields]:
    """Yield the fields of every image in the tables and descriptions among ``files``."""
    for path in files:
        if path.suffix.lower() == ".csv":
            try:
                candidates = read_table(path).rows
            except InputError as error:
                left_out.append(LeftOut(BAD_TABLE, str(error)))
                continue
        elif path.suffix.lower() == ".json" or _DESCRIPTION.fullmatch(path.name):
            try:
                candidates = [_flatten(json.loads(path.read_bytes()))]
            except ValueError:
                left_out.append(LeftOut(BROKEN, path.name))
                continue
        else:
            continue
        yield from filter(_is_about_image, candidates)


def _is_about_image(fields: Fields) -> bool:
    """Return whether the fields are ISIC metadata; other tables and JSON files may be in the same folder."""
    from_api = "name" in fields and any(name.startswith(("meta.", "dataset.")) for name in fields)
    return "isic_id" in fields or from_api


def _record(fields: Fields) -> Record:
    fields = {_CLINICAL.sub("", name): value for name, value in fields.items()}
    name = image_id(first_filled(fields.get("isic_id", ""), fields.get("name", "")))
    patient, lesion = (first_filled(fields.get(f"{level}_id", "")) for level in LEVELS)
    diagnoses = tuple(fields.get(key, "") for key in _DIAGNOSES)
    return Record(name, diagnoses, patient or lesion or name, patient, lesion)


def _belongs(dataset: str, domain: str) -> bool:
    """Return whether a collection, such as ``MSK-1`` or (before 2018) ``ISIC_MSK-1_1``, belongs to the domain."""
    name = dataset.strip().upper().removeprefix("ISIC_")
    return not name or re.fullmatch(rf"{ISIC_COLLECTIONS[domain]}(-\d+)?(_\d+)?", name) is not None


def _flatten(value: Any, name: str = "") -> Fields:
    """Flatten nested JSON: ``{"meta": {"sex": "male"}}`` becomes ``{"meta.sex": "male"}``."""
    if not isinstance(value, Mapping):
        return {name: "" if value is None else str(value)}
    flat: Fields = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{name}.{key}" if name else key)
    return flat
