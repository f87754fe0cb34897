"""Fitzpatrick17k: clinical images from two atlases with skin types, named by the MD5 of their address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from fastccsa.collections.labels import LabelMap, LabelMaps
from fastccsa.collections.readers.collection import WRONG_LABEL, Collection
from fastccsa.collections.readers.tabular import Layout, read_tables


def _doubt(row: Mapping[str, str]) -> str:
    return WRONG_LABEL if row.get("qc", "").strip().lower().endswith("wrongly labelled") else ""


_LAYOUT = Layout(
    required=("md5hash", "label", "fitzpatrick_scale"),
    image="md5hash",
    diagnoses=("label",),
    prefix="F17K_",
    also=("qc",),
    doubt=_doubt,
)
_IMAGE = re.compile(r"[0-9A-F]{32}")


def read_fitzpatrick17k(folder: Path, labels: LabelMap | None = None) -> Collection:
    """Read Fitzpatrick17k as published on GitHub, with the images it links to.

    Args:
        folder: contains ``fitzpatrick17k.csv`` and the images ``<md5hash>.jpg``, at any depth.
        labels: the label map; None for the package's own.

    Returns:
        Images, each in its own group: the table does not know the patients. Rows whose column ``qc`` says "Wrongly
        labelled" are left out.

    Raises:
        InputError: there is no such folder, or no usable table in it.
    """
    labels = labels or LabelMaps.read().of("fitzpatrick17k")
    return read_tables(
        folder,
        (_LAYOUT,),
        labels,
        _IMAGE,
        what="fitzpatrick17k.csv",
        advice="pass the folder that contains Fitzpatrick17k's table and images",
        stem="fitzpatrick17k",
    )
