"""MILK10k: two images of each lesion, clinical and dermoscopic; the ground truth has a row per lesion."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import BAD_TABLE, ISIC_IMAGE, Collection, Record, collect, first_filled
from fastccsa.collections.readers.columns import about, is_about
from fastccsa.collections.readers.files import image_id, index_images, list_files
from fastccsa.collections.readers.onehot import one_hot
from fastccsa.collections.readers.tabular import TABLES, nothing_found, table_or_none
from fastccsa.collections.tables import column_names
from fastccsa.system.errors import InputError

_CLASSES = ("akiec", "bcc", "ben_oth", "bkl", "df", "inf", "mal_oth", "mel", "nv", "sccka", "vasc")
_TRUTH = {"lesion_id", *_CLASSES}
_IMAGES = {"isic_id"}  # of the metadata, and of the supplement, which does not name the lesion


def read_milk10k(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read MILK10k as published for its challenge, or as downloaded by isic-cli with its supplements.

    Args:
        folder: contains ``MILK10k_Training_GroundTruth.csv`` (or ``training_gt.csv``), a table with ``isic_id`` and
            ``lesion_id`` (``MILK10k_Training_Metadata.csv`` or ``metadata.csv``), and the images, at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Images grouped by ``lesion_id``. Images of lesions without ground truth are left out.

    Raises:
        InputError: there is no such folder, or one of the two tables is missing or unusable.
    """
    files = list_files(folder)
    found = Collection()
    truth: dict[str, tuple[str, ...]] = {}
    records: list[Record] = []
    tables = [(path, set(column_names(path))) for path in files if path.suffix.lower() in TABLES]
    for path, columns in tables:
        if columns >= _TRUTH:
            _merge(truth, _truth(path, found))
    for path, columns in tables:
        if columns >= _IMAGES and not columns >= _TRUTH:
            records += _records(path, truth, found)
    if not truth or not records:
        what = "ground truth of MILK10k (a table of lesion_id and 11 classes) with its table of isic_id and lesion_id"
        raise nothing_found(folder, what, "pass the folder that contains both and the images", files, found)
    collection = collect(records, index_images(files), labels or LabelMaps.read().of("milk10k"), ISIC_IMAGE)
    collection.left_out += found.left_out
    collection.tables |= found.tables
    return collection


def _truth(path: Path, found: Collection) -> dict[str, tuple[str, ...]]:
    table = table_or_none(path, lambda name: name in _TRUTH, found)
    if table is None:
        return {}
    try:
        return {row["lesion_id"].strip(): marked for row, marked in one_hot(path, table, _CLASSES)}
    except InputError as error:
        del found.tables[path]
        found.leave_out(BAD_TABLE, str(error))
        return {}


def _merge(truth: dict[str, tuple[str, ...]], other: dict[str, tuple[str, ...]]) -> None:
    """Add the lesions of another table; of one that both list, the diagnoses of both count."""
    for lesion, marked in other.items():
        before = truth.get(lesion, ())
        truth[lesion] = before + tuple(name for name in marked if name not in before)


def _records(path: Path, truth: dict[str, tuple[str, ...]], found: Collection) -> Iterable[Record]:
    table = table_or_none(path, lambda name: name in ("isic_id", "lesion_id") or is_about(name), found)
    for row in table.rows if table else ():
        name, lesion = image_id(row["isic_id"]), first_filled(row.get("lesion_id", ""))
        yield Record(name, truth.get(lesion, ()), lesion or name, "", lesion, about(row), path)
