"""The record of a run's sampling and weights: ``sampling.json`` in the run folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from fastccsa.system.files import write_atomically
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.schema import Count, Filled, Mismatch, Positive, build

SAMPLING_FILE = "sampling.json"

Vector = tuple[Positive, ...]
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

    classes: Annotated[tuple[str, ...], Filled()]
    domains: tuple[str, ...]
    counts: tuple[tuple[Count, ...], ...]
    first: Vector
    second: Vector | None = None
    joint: Matrix | None = None
    class_weight1: Vector | None = None
    class_weight2: Vector | None = None
    pair_weight: Matrix | None = None
    margin: Positive | None = None

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
        try:
            with reported(path, "is not a sampling record", "remove it to report without it"):
                record = build(SamplingRecord, load_json(read_bytes(path)))
                record.check()
                return record
        except FileNotFoundError:
            return None

    def check(self) -> None:
        """Check that the lengths of its parts match.

        Raises:
            InputError: they do not; the message does not name the file.
        """
        classes = len(self.classes)
        for name in ("first", "second", "class_weight1", "class_weight2", "joint", "pair_weight"):
            part = getattr(self, name)
            rows = (part,) if name not in ("joint", "pair_weight") else part or ()
            if part is not None and (len(part) != classes or any(len(row) != classes for row in rows)):
                raise Mismatch(f"{name} does not match the {classes} classes")
        if len(self.counts) != len(self.domains) or any(len(row) != classes for row in self.counts):
            raise Mismatch(f"counts does not match the {len(self.domains)} domains and {classes} classes")
