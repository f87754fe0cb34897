"""A user's own data: a table of images, or folders by domain and class."""

from __future__ import annotations

import os
from pathlib import Path

from fastccsa.collections.groups import LEVELS
from fastccsa.collections.labels import OWN, LabelMap, LabelMaps
from fastccsa.collections.readers.collection import (
    AMBIGUOUS,
    NO_FILE,
    NO_REGULAR_FILE,
    NOTHING,
    Collection,
    Row,
    classify,
    listed_differently,
)
from fastccsa.collections.readers.files import is_image, list_files
from fastccsa.collections.tables import Table, read_table
from fastccsa.collections.validate import SPLITS
from fastccsa.system.errors import InputError

OUTSIDE = "image outside domain/class folders"

_REQUIRED = ("image", "label")
_OPTIONAL = ("domain", "group", "split", *LEVELS)


def read_own_csv(path: Path, domain: str, labels: LabelMap | None = None) -> Collection:
    """Read a table with the columns ``image, label`` and optionally ``domain, group, split, patient, lesion``.

    Other columns are kept.

    Args:
        path: the table, separated by commas, semicolons or tabs; image paths are absolute or relative to its folder.
        domain: the domain of rows that name none.
        labels: the label map; None for the package's own.

    Returns:
        Images in the order of the table. Groups, patients and lesions are local to the table: the same name in another
        table means another one. Where a row has no group, its patient, its lesion or the image itself is one.

    Raises:
        InputError: a column is missing or repeated, a row names no image, a split is invalid, only some rows have a
            split, or a group, patient or lesion is in two splits; the message names the line.
    """
    labels = labels or LabelMaps.read().of(OWN)
    table = read_table(path)
    _check_columns(table, path)
    if table.wide:
        raise InputError(
            f"{path}: line {table.wide[0]} has more fields than the {len(table.columns)} columns of line 1; "
            "put quotes around fields that contain the separator"
        )
    _check_splits(table, path)
    collection = Collection(tables={path: len(table.rows)})
    others = [name for name in table.columns if name and name not in (*_REQUIRED, *_OPTIONAL)]
    images = [_image(line, row, path) for line, row in zip(table.lines, table.rows, strict=True)]
    classified = [classify((row["label"],), labels, literal=True) for row in table.rows]
    ambiguous = listed_differently((image, *meaning) for image, meaning in zip(images, classified, strict=True))
    for image, (label, reason), row in zip(images, classified, table.rows, strict=True):
        name = row["image"].strip()
        if image in ambiguous:
            collection.leave_out(AMBIGUOUS, name)
        elif label is None:
            collection.leave_out(reason, name)
        elif not os.path.isfile(image):
            collection.leave_out(NO_REGULAR_FILE if os.path.exists(image) else NO_FILE, name)
        else:
            group, patient, lesion = (row.get(column, "").strip() for column in ("group", *LEVELS))
            local = {
                level: f"{domain}/{known}" for level, known in zip(LEVELS, (patient, lesion), strict=True) if known
            }
            collection.rows.append(
                Row(
                    image,
                    label,
                    f"{domain}/{group or patient or lesion or name}",
                    row.get("domain", "").strip() or domain,
                    row.get("split", "").strip(),
                    **local,
                    about={name: " ".join(row[name].split()) for name in others} if others else NOTHING,
                )
            )
    return collection


def read_own_folders(folder: Path, name: str, labels: LabelMap | None = None) -> Collection:
    """Read images in folders ``<domain>/<class>/``, at any depth below.

    Args:
        folder: contains a folder per domain.
        name: name of this data, which becomes the prefix of its groups.
        labels: the label map; None for the package's own.

    Returns:
        Images, each in its own group.

    Raises:
        InputError: there is no such folder.
    """
    labels = labels or LabelMaps.read().of(OWN)
    collection = Collection()
    for path in list_files(folder):
        if not is_image(path):
            continue
        image = path.relative_to(folder)
        if len(image.parts) < 3:
            collection.leave_out(OUTSIDE, image.as_posix())
            continue
        label, reason = classify((image.parts[1],), labels, literal=True)
        if label is None:
            collection.leave_out(reason, image.as_posix())
        else:
            collection.rows.append(Row(path, label, f"{name}/{image.as_posix()}", image.parts[0]))
    return collection


def _image(line: int, row: dict[str, str], path: Path) -> Path:
    """Return the absolute path of a row's image."""
    name = row["image"].strip()
    if not name:
        raise InputError(f"{path}: line {line} names no image; fill the column image or delete the line")
    return Path(os.path.abspath(os.path.join(path.parent, name.replace("\\", "/"))))


def _check_columns(table: Table, path: Path) -> None:
    missing = [column for column in _REQUIRED if column not in table.columns]
    if missing:
        raise InputError(
            f"{path}: line 1 lacks {', '.join(missing)}; the columns are {', '.join(_REQUIRED)} and, optionally, "
            f"{', '.join(_OPTIONAL)}"
        )
    for column in (*_REQUIRED, *_OPTIONAL):
        if table.columns.count(column) > 1:
            raise InputError(f"{path}: line 1 names {column} twice; keep one of the two")


def _check_splits(table: Table, path: Path) -> None:
    """Check that either all rows have a split or none has, and that no group, patient or lesion is in two splits."""
    if "split" not in table.columns:
        return
    split_of: dict[tuple[str, str], str] = {}
    for line, row in zip(table.lines, table.rows, strict=True):
        split = row["split"].strip()
        if split not in (*SPLITS, ""):
            raise InputError(f"{path}: line {line}: split {split!r} is not one of {', '.join(SPLITS)}")
        if bool(split) != bool(table.rows[0]["split"].strip()):
            raise InputError(f"{path}: line {line}: fill the column split for every image or for none")
        for column in ("group", *LEVELS):
            name = row.get(column, "").strip()
            before = split_of.setdefault((column, name), split) if name else split
            if before != split:
                raise InputError(f"{path}: line {line}: {column} {name!r} is in {split} here and in {before} above")
