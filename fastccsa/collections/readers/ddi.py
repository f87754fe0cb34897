"""DDI, Diverse Dermatology Images: clinical images of three groups of skin tones, proven by biopsy."""

from __future__ import annotations

import re
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import Collection
from fastccsa.collections.readers.tabular import Layout, read_tables

_LAYOUT = Layout(required=("ddi_file", "disease"), image="ddi_file", diagnoses=("disease",), prefix="DDI_")
_IMAGE = re.compile(r"\d{6}")


def read_ddi(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read DDI as published by Stanford.

    Args:
        folder: contains ``ddi_metadata.csv`` and the images ``000001.png``, at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Images, each in its own group: the table does not know the patients.

    Raises:
        InputError: there is no such folder, or no usable table in it.
    """
    labels = labels or LabelMaps.read().of("ddi")
    return read_tables(
        folder,
        (_LAYOUT,),
        labels,
        _IMAGE,
        what="ddi_metadata.csv",
        advice="pass the folder that contains DDI's table and images",
        stem="ddi_metadata",
    )
