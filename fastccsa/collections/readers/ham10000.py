"""HAM10000: a table of metadata, and 10015 images in one or two folders; or a download of the ISIC archive."""

from __future__ import annotations

from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import ISIC_IMAGE, Collection
from fastccsa.collections.readers.isic import ISIC_CLI
from fastccsa.collections.readers.tabular import Layout, read_tables

_DATAVERSE = Layout(required=("lesion_id", "image_id", "dx"), image="image_id", diagnoses=("dx",), lesion="lesion_id")


def read_ham10000(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read HAM10000 as published by Harvard Dataverse and its mirrors, or as downloaded by isic-cli.

    Args:
        folder: contains ``HAM10000_metadata.csv`` (or without extension, or ``.tab``), or isic-cli's ``metadata.csv``,
            and the images ``ISIC_*.jpg``, at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Images grouped by patient if the table knows it, else by lesion.

    Raises:
        InputError: there is no such folder, or no usable table in it.
    """
    labels = labels or LabelMaps.read().of("ham10000")
    return read_tables(
        folder,
        (_DATAVERSE, ISIC_CLI),
        labels,
        ISIC_IMAGE,
        what="HAM10000_metadata.csv (or HAM10000_metadata)",
        advice="pass the folder that contains HAM10000's metadata, or isic-cli's metadata.csv, and the images",
        stem="ham10000_metadata",
    )
