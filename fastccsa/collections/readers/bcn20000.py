"""BCN20000: tables of metadata for its two parts, or a download of the ISIC archive."""

from __future__ import annotations

import re
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import Collection
from fastccsa.collections.readers.isic import ISIC_CLI
from fastccsa.collections.readers.tabular import Layout, read_tables

_FIGSHARE = Layout(required=("bcn_filename",), image="bcn_filename", diagnoses=("diagnosis",), lesion="lesion_id")
_IMAGE = re.compile(r"(BCN|ISIC)_\d+")


def read_bcn20000(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read BCN20000 as published on figshare, or as downloaded by isic-cli.

    Args:
        folder: contains ``bcn_20k_train.csv`` and ``bcn_20k_test.csv``, or isic-cli's ``metadata.csv``, and the images,
            at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Images grouped by ``lesion_id``. Images without a diagnosis, as those of the test part, are left out.

    Raises:
        InputError: there is no such folder, or no usable table in it.
    """
    labels = labels or LabelMaps.read().of("bcn20000")
    return read_tables(
        folder,
        (_FIGSHARE, ISIC_CLI),
        labels,
        _IMAGE,
        what="bcn_20k_train.csv (with the column bcn_filename)",
        advice="pass the folder that contains BCN20000's tables, or isic-cli's metadata.csv, and the images",
    )
