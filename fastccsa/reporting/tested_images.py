"""What the manifest of a run says about its test images: the clusters and the subgroups that they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fastccsa.collections import Manifest
from fastccsa.evaluation.resampling import Indices
from fastccsa.reporting.arms import Result
from fastccsa.system.errors import InputError

CLUSTER_COLUMN = "group"  # of a manifest: a lesion, or a patient
BANDS = 4  # of a column of numbers
MOST_VALUES = 20  # of a column of names, and of a column of numbers that is not divided into bands
UNKNOWN = "unknown"


def _read_table(result: Result) -> pd.DataFrame | str:
    """Read the manifest's rows of the test images; the reason in words if it is gone or has changed."""
    config = result.run.config
    path = Path(config.manifest)
    try:
        unchanged = config.manifest_sha256 in ("", hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError:
        return f"{path} is not here"
    if not unchanged:
        return f"{path} changed"
    return Manifest.read(path, check_files=False).table.iloc[result.outputs.rows]


def _column(table: pd.DataFrame, column: str, result: Result) -> pd.Series[str]:
    if column not in table:
        raise InputError(f"{result.run.config.manifest} has no column {column!r}; it has {', '.join(table)}")
    return table[column].fillna("").astype(str).str.strip()


@dataclass(frozen=True)
class Clusters:
    """The clusters of the test images.

    Attributes:
        of_image: number of each image's cluster, int64 [n]; None if each image is one.
        remark: what they are, as part of a sentence.
    """

    of_image: Indices | None
    remark: str

    @staticmethod
    def read(result: Result, column: str = CLUSTER_COLUMN) -> Clusters:
        """Read the clusters of a run's test images from a column of its manifest.

        Without the manifest, or if it changed, each image is its own cluster, and the remark says so.

        Raises:
            InputError: the manifest lacks the column.
        """
        table = _read_table(result)
        if isinstance(table, str):
            return Clusters(None, f"images ({table}, so that images of one lesion count as independent)")
        values = _column(table, column, result).to_numpy()
        _, numbers = np.unique(values, return_inverse=True)
        return Clusters(numbers.reshape(-1).astype(np.int64), f"values of the manifest's column {column!r}")


@dataclass(frozen=True)
class Subgroups:
    """A division of the test images by a column of the manifest, over all domains.

    Attributes:
        of_image: number of each image's subgroup, int64 [n].
        names: the column's values; bands of equal size for a column of many numbers.
        titles: names with the number of images, by name.
        remark: what the subgroups are, in a sentence.
    """

    of_image: Indices
    names: tuple[str, ...]
    titles: Mapping[str, str]
    remark: str

    @staticmethod
    def read(result: Result, column: str) -> Subgroups:
        """Read the subgroups of a run's test images.

        Raises:
            InputError: the manifest is gone, has changed, lacks the column, or the column has too many values.
        """
        table = _read_table(result)
        if isinstance(table, str):
            raise InputError(f"subgroups need the manifest of {result.run.folder}, but {table}: restore it")
        values = _column(table, column, result)
        numbers = pd.to_numeric(values, errors="coerce")
        is_number = bool((numbers.notna() | (values == "")).all()) and bool(numbers.notna().any())
        if is_number and numbers.nunique() > MOST_VALUES // 2:
            bands = pd.qcut(numbers, BANDS, duplicates="drop")
            # In the order of the numbers, which their texts would not have.
            order = [str(band) for band in bands.cat.categories]
            values = bands.astype(str).where(numbers.notna(), UNKNOWN)
        else:
            values = values.where(values != "", UNKNOWN)
            order = sorted(set(values) - {UNKNOWN}, key=lambda text: (float(text) if is_number else 0.0, text))
        names = (*order, UNKNOWN) if (values == UNKNOWN).any() else tuple(order)
        if len(names) > MOST_VALUES:
            raise InputError(
                f"{result.run.config.manifest}: column {column!r} has {len(names)} values in the test images, too many "
                f"for a table; {MOST_VALUES} is the most"
            )
        place = {name: number for number, name in enumerate(names)}
        of_image = values.map(place).to_numpy().astype(np.int64)
        counts = np.bincount(of_image, minlength=len(names))
        titles = {name: f"{name} (n={count})" for name, count in zip(names, counts.tolist(), strict=True)}
        remark = (
            f"Subgroups: the manifest's column {column!r}, images of all domains; gap: the highest minus the lowest."
        )
        return Subgroups(of_image, names, titles, remark)
