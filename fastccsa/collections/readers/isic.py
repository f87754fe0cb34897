"""The collections MSK, UDA and SONIC of the ISIC archive, in the layouts of four download tools."""

from __future__ import annotations

import json
import re
from collections.abc import Collection as Names
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import ISIC_IMAGE, Collection, Record, collect, first_filled
from fastccsa.collections.readers.files import index_images, list_files
from fastccsa.collections.readers.tabular import Layout, nothing_found, table_or_none
from fastccsa.collections.tables import column_names
from fastccsa.collections.taxonomy import ISIC_COLLECTIONS
from fastccsa.system.errors import InputError

BROKEN = "description is not valid JSON"

# Descriptions from the downloader script have no extension; they are recognised by name.
_DESCRIPTION = re.compile(r"ISIC_\d+(_downsampled)?", re.IGNORECASE)
_PREFIX = re.compile(r"^meta(data)?\.(clinical|acquisition)\.")  # of the old and of today's API
# The most specific first: of the levels that replaced `diagnosis` in 2025, 5 is the finest.
_DIAGNOSES = ("diagnosis", "diagnosis_5", "diagnosis_4", "diagnosis_3", "diagnosis_2", "diagnosis_1")

# A row of isic-cli's table, or a description of an image without its prefixes.
ISIC_CLI = Layout(
    required=("isic_id",),
    image="isic_id",
    diagnoses=_DIAGNOSES,
    patient="patient_id",
    lesion="lesion_id",
)

Fields = dict[str, str]  # the metadata of one image by field: "name", "dataset.name", "diagnosis", ...


def read_isic(folder: Path, domain: str, labels: LabelMap | None = None) -> Collection:
    """Read one domain's images from a download of the ISIC archive.

    Supported layouts, which may be mixed in one folder:

    - isic-cli: ``metadata.csv`` next to the images, with ``diagnosis`` or, since 2025, ``diagnosis_1`` to
      ``diagnosis_5``. It does not name the collection.
    - the archive from the site: ``ISIC-images/metadata.csv`` with ``name``, ``dataset.name`` and
      ``meta.clinical.diagnosis``, and the images in a folder per collection.
    - the API, old or current: a file ``<name>.json`` per image, or files with lists of images.
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
    found = Collection()
    records: list[Record] = []
    for path, fields in _metadata(files, found):
        record = _record(fields, path)
        dataset = fields.get("dataset.name", "")
        if _belongs(dataset, domain):
            records.append(record)
        else:
            found.leave_out(f"belongs to {dataset}, not to {domain}", record.image)
            images.pop(record.image, None)
    if not records and not found.left_out:
        advice = (
            "looked for a CSV file with the column isic_id or name, for <name>.json files, and for Descriptions/<name> "
            "files"
        )
        raise nothing_found(folder, "ISIC metadata", advice, files, found)
    collection = collect(records, images, labels or LabelMaps.read().of("isic"), ISIC_IMAGE)
    collection.left_out += found.left_out
    collection.tables |= found.tables
    return collection


def _metadata(files: Sequence[Path], found: Collection) -> Iterator[tuple[Path, Fields]]:
    """Yield the fields of every image in the tables and descriptions among ``files``."""
    for path in files:
        if path.suffix.lower() == ".csv":
            columns = column_names(path)
            # A table of which nothing can be seen is read to say why.
            if not columns or _is_about_image(columns):
                table = table_or_none(path, _is_read, found)
                for row in table.rows if table else ():
                    yield path, row
        elif path.suffix.lower() == ".json" or _DESCRIPTION.fullmatch(path.name):
            try:
                candidates = [_flatten(value) for value in _listed(json.loads(path.read_bytes()))]
            except (OSError, ValueError, RecursionError):
                found.leave_out(BROKEN, path.name)
                continue
            about_images = [fields for fields in candidates if _is_about_image(fields)]
            if about_images:
                found.tables[path] = len(about_images)
            for fields in about_images:
                yield path, fields


def _listed(value: Any) -> list[Any]:
    """Return the descriptions in a JSON file: itself, or those in a list or in a page of the API's results."""
    if isinstance(value, Mapping) and isinstance(value.get("results"), list):
        value = value["results"]
    return value if isinstance(value, list) else [value]


def _is_about_image(names: Names[str]) -> bool:
    """Return whether the fields are ISIC metadata; other tables and JSON files may be in the same folder."""
    from_api = "name" in names and any(name.startswith(("meta.", "dataset.")) for name in names)
    return "isic_id" in names or from_api


def _is_read(name: str) -> bool:
    return name in ("name", "dataset.name") or ISIC_CLI.reads(_PREFIX.sub("", name))


def _record(fields: Fields, path: Path) -> Record:
    fields = {_PREFIX.sub("", name): value for name, value in fields.items() if _is_read(name)}
    name = first_filled(fields.get("isic_id", ""), fields.get("name", ""))
    return ISIC_CLI.record(fields | {"isic_id": name}, path)


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
