"""What a benchmark measured, and the JSON file it is kept in."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

__all__ = ["FORMAT", "CellResult", "Measurement", "Results"]

FORMAT = 1  # of the file; a reader refuses others
OURS, RIVAL, FLOOR = "fastccsa", "rival", "floor"


@dataclass
class Measurement:
    """One contestant in one cell.

    Attributes:
        contestant: its name.
        kind: ``"fastccsa"``, ``"rival"``, or ``"floor"``: what no implementation gets below.
        seconds: mean time of a call in each round; empty where it was not measured.
        calls: calls a round.
        peak_bytes: the most memory held beyond the inputs; None where it was not measured.
        loss_error: relative error of the loss against float64.
        gradient_error: largest error of a gradient, relative to the largest entry of that gradient in float64.
        note: what the reader must know about this row.
        not_measured: why it was not measured.
        cpu_seconds: CPU time of a call in each round, all threads and processes together, where it is counted.
    """

    contestant: str
    kind: str
    seconds: list[float] = field(default_factory=list)
    calls: int = 0
    peak_bytes: int | None = None
    loss_error: float | None = None
    gradient_error: float | None = None
    note: str = ""
    not_measured: str | None = None
    cpu_seconds: list[float] = field(default_factory=list)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile of the times."""
        if len(self.seconds) == 1:
            return (self.seconds[0],) * 3
        low, median, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, median, high

    @property
    def median(self) -> float:
        """The median time of a call in seconds."""
        return statistics.median(self.seconds)


@dataclass
class CellResult:
    """All contestants at one set of sizes.

    Attributes:
        cell: the sizes and settings, by name.
        bytes_moved: what each implementation has to read and write at least.
        input_bytes: what the inputs hold.
        measurements: a row a contestant.
    """

    cell: dict[str, Any]
    bytes_moved: int
    input_bytes: int
    measurements: list[Measurement] = field(default_factory=list)

    def __getitem__(self, contestant: str) -> Measurement:
        return next(m for m in self.measurements if m.contestant == contestant)

    def of_kind(self, kind: str) -> list[Measurement]:
        """The rows of one kind that were measured."""
        return [m for m in self.measurements if m.kind == kind and m.seconds]

    def ratio(self, measurement: Measurement) -> float | None:
        """How many times as long as fastccsa a contestant takes, median by median; None where one was not measured."""
        ours = self.of_kind(OURS)
        return measurement.median / ours[0].median if ours and measurement.seconds else None

    @property
    def floor(self) -> Measurement | None:
        """The highest of the floors: each of them is a lower bound."""
        return max(self.of_kind(FLOOR), key=lambda m: m.median, default=None)


@dataclass
class Results:
    """A run of a benchmark.

    Attributes:
        benchmark: which.
        machine: see :func:`fastccsa.system.machine.describe`.
        versions: of what took part.
        commit: of fastccsa, or None where it is not known.
        date: when the run began, UTC.
        command: what was typed.
        settings: how it was measured.
        cells: what was measured.
    """

    benchmark: str
    machine: dict[str, Any]
    versions: dict[str, str | None]
    commit: str | None
    date: str
    command: str
    settings: dict[str, Any]
    cells: list[CellResult] = field(default_factory=list)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file; times keep four significant digits."""
        content = {"format": FORMAT} | asdict(self)
        for cell in content["cells"]:
            for measurement in cell["measurements"]:
                for name in ("seconds", "cpu_seconds"):
                    measurement[name] = [float(f"{value:.4g}") for value in measurement[name]]
        with write_atomically(path) as temporary:
            temporary.write_text(_compact(content) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Results:
        """Read what :meth:`write` wrote.

        Raises:
            InputError: the file is not such a file.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise ValueError("another format")
            content["cells"] = [
                CellResult(**cell | {"measurements": [Measurement(**m) for m in cell["measurements"]]})
                for cell in content["cells"]
            ]
            return cls(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is not a file of benchmark results: give one that `fastccsa bench zipped`, `all-pairs` or "
                "`images` wrote"
            ) from error


def _compact(content: Any) -> str:
    """JSON of one line a measurement, so that a change of one is a change of one line."""
    cells = content.pop("cells")
    head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
    lines = []
    for cell in cells:
        rows = ",\n   ".join(json.dumps(row, ensure_ascii=False) for row in cell.pop("measurements"))
        lines.append(f'{json.dumps(cell, ensure_ascii=False)[:-1]}, "measurements": [\n   {rows}\n  ]}}')
    return head + ',\n "cells": [\n  ' + ",\n  ".join(lines) + "\n ]\n}"
