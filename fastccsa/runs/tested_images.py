"""What the manifest of a run says about its test images: the clusters and the subgroups that they belong to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fastccsa.collections import Manifest
from fastccsa.evaluation import Outputs
from fastccsa.evaluation.resampling import Indices
from fastccsa.evaluation.tuning import Tuning
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import VALIDATION_OUTPUTS_FILE
from fastccsa.system.errors import InputError
from fastccsa.system.reading import read_bytes

CLUSTER_COLUMN = "group"  # of a manifest: a lesion, or a patient
BANDS = 4  # of a column of numbers
MOST_VALUES = 20  # of a column of names, and of a column of numbers that is not divided into bands
UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class ImageRows:
    """The manifest's rows of a run's test images.

    Attributes:
        file: the manifest.
        table: the rows, in the order of the outputs; None if the manifest is gone or has changed.
        problem: the reason in words why there are none; "" if there are.
        manifest: the whole manifest; None likewise.
    """

    file: str
    table: pd.DataFrame | None
    problem: str = ""
    manifest: Manifest | None = None

    @staticmethod
    def read(config: TrainConfig, outputs: Outputs) -> ImageRows:
        """Read the rows of the images that ``outputs`` are about from the run's manifest.

        Raises:
            InputError: the manifest is unchanged, and yet broken or shorter than the run's.
        """
        path = Path(config.manifest)
        try:
            unchanged = config.manifest_sha256 in ("", hashlib.sha256(read_bytes(path)).hexdigest())
        except OSError:
            return ImageRows(config.manifest, None, f"{path} is not here")
        if not unchanged:
            return ImageRows(config.manifest, None, f"{path} changed")
        manifest = Manifest.read(path, check_files=False)
        if int(outputs.rows.max()) >= len(manifest):
            return ImageRows(config.manifest, None, f"{path} has fewer images than the run's outputs")
        return ImageRows(config.manifest, manifest.table.iloc[outputs.rows], manifest=manifest)

    def column(self, name: str) -> pd.Series[str]:
        """Return the values of a column of the rows, which must be there, as text without white space around it.

        Raises:
            InputError: the manifest lacks the column.
        """
        assert self.table is not None
        if name not in self.table:
            raise InputError(f"{self.file} has no column {name!r}; it has {', '.join(self.table)}")
        return self.table[name].fillna("").astype(str).str.strip()


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
    def of(images: ImageRows, column: str = CLUSTER_COLUMN) -> Clusters:
        """Return the clusters of a run's test images from a column of its manifest.

        Without the manifest, or if it changed, each image is its own cluster, and the remark says so.

        Raises:
            InputError: the manifest lacks the column.
        """
        if images.table is None:
            remark = f"images ({images.problem}, so that images of one lesion count as independent)"
            return Clusters(None, remark)
        values = images.column(column).to_numpy()
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
    def of(images: ImageRows, column: str, run: Path) -> Subgroups:
        """Return the subgroups of the test images of a run.

        Raises:
            InputError: the manifest is gone, has changed, lacks the column, or the column has too many values.
        """
        if images.table is None:
            raise InputError(f"subgroups need the manifest of {run}, but {images.problem}: restore it")
        values = images.column(column)
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
                f"{images.file}: column {column!r} has {len(names)} values in the test images, too many "
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


def read_tuning(folder: Path, config: TrainConfig, positive: str | None) -> Tuning | None:
    """Choose what is chosen on a run's validation images of the training domains; None without their outputs."""
    path = folder / VALIDATION_OUTPUTS_FILE
    if not path.exists():
        return None
    outputs = Outputs.read(path)
    trained = [number for number, name in enumerate(outputs.domain_names) if name not in config.exclude]
    chosen = outputs.take(np.isin(outputs.domains, trained))
    index = outputs.classes.index(positive) if positive in outputs.classes else None
    return Tuning.choose(chosen, index) if len(chosen) else None
