"""PAD-UFES-20: clinical images from smartphones, with a table of patients, lesions and skin types."""

from __future__ import annotations

import re
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import Collection
from fastccsa.collections.readers.tabular import Layout, read_tables

_LAYOUT = Layout(
    required=("img_id", "diagnostic", "patient_id", "lesion_id"),
    image="img_id",
    diagnoses=("diagnostic",),
    patient="patient_id",
    lesion="lesion_id",
    prefix="PAD_",
)
_IMAGE = re.compile(r"PAT_\d+_\d+_\d+")


def read_pad_ufes_20(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read PAD-UFES-20 as published on Mendeley Data.

    Args:
        folder: contains ``metadata.csv`` and the images ``PAT_*.png``, at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Images grouped by ``patient_id``.

    Raises:
        InputError: there is no such folder, or no usable table in it.
    """
    labels = labels or LabelMaps.read().of("pad-ufes-20")
    return read_tables(
        folder,
        (_LAYOUT,),
        labels,
        _IMAGE,
        what="metadata.csv with the columns img_id, diagnostic, patient_id and lesion_id",
        advice="pass the folder that contains PAD-UFES-20's table and images",
    )
