"""The record of a run's sampling and weights: ``sampling.json`` in the run folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

SAMPLING_FILE = "sampling.json"

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


@dataclass(frozen=True)
class SamplingRecord:
    """Probabilities and weights of a run's classes and pairs of classes.

    Attributes:
        classes: names of the C classes.
        domains: keys of the training domains.
        counts: training images by domain (rows) and class.
        first: P(y1), [C], of the first images, or of a baseline's single images.
        second: P(y2), [C]; None for a baseline.
        joint: P(y1, y2), [C, C], with y1 along the rows; None for a baseline.
        class_weight1, class_weight2: weights of the cross-entropy, [C]; None if it is unweighted.
        pair_weight: weights of the alignment, [C, C]; None if it is unweighted.
        margin: the margin in units of the features that are compared; None for a baseline, and in older records.
    """

    classes: tuple[str, ...]
    domains: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    first: Vector
    second: Vector | None = None
    joint: Matrix | None = None
    class_weight1: Vector | None = None
    class_weight2: Vector | None = None
    pair_weight: Matrix | None = None
    margin: float | None = None

    def write(self, folder: Path) -> None:
        """Write ``sampling.json`` into a run folder.

        Raises:
            InputError: the folder cannot be written.
        """
        with write_atomically(folder / SAMPLING_FILE) as file:
            file.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def read(folder: Path) -> SamplingRecord | None:
        """Read what `write` wrote; None if there is no such file, as in runs of older versions.

        Raises:
            InputError: the file is broken.
        """
        path = folder / SAMPLING_FILE
        if not path.exists():
            return None
        try:
            values: dict[str, Any] = {k: _tuples(value) for k, value in json.loads(path.read_text()).items()}
            return SamplingRecord(**values)
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a sampling record ({error}); remove it to report without it") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
