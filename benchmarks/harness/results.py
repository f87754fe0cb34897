"""Results, and their files: pytest-benchmark's JSON, with one line per contestant."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

OURS, RIVAL, FLOOR = "fastccsa", "rival", "floor"  # no implementation gets below a floor
STATS = ("min", "max", "mean", "stddev", "median", "iqr", "outliers", "ops", "rounds", "iterations", "data")


@dataclass
class Row:
    """One contestant in one cell."""

    contestant: str
    kind: str = RIVAL
    seconds: list[float] = field(default_factory=list)  # mean time of a call, by round
    calls: int = 0  # per round
    peak_bytes: int | None = None  # the most memory held beyond the inputs
    loss_error: float | None = None  # relative to the loss in float64
    gradient_error: float | None = None  # the largest one, relative to the largest entry of that gradient in float64
    note: str = ""  # shown as a footnote
    not_measured: str | None = None  # the reason, if it was not measured
    cpu_seconds: list[float] = field(default_factory=list)  # of all threads and processes together
    extra: dict[str, Any] = field(default_factory=dict)  # other figures

    @property
    def median(self) -> float:
        """The median time of a call in seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper quartile of the times."""
        low, _, high = statistics.quantiles(self.seconds * (2 if len(self.seconds) == 1 else 1), method="inclusive")
        return low, high

    def as_info(self) -> dict[str, Any]:
        """Return every field that is set, except for name and times, as pytest-benchmark's ``extra_info``."""
        unset = vars(Row("")) | {"contestant": self.contestant, "seconds": self.seconds}
        return {"kind": self.kind} | {name: value for name, value in vars(self).items() if value != unset[name]}


@dataclass
class Results:
    """One run of one or several benchmarks; fields without a comment are pytest-benchmark's."""

    machine_info: dict[str, Any]  # see `fastccsa.system.machine.describe`; and the ``versions`` of packages
    commit_info: dict[str, Any]
    datetime: str
    version: str
    command: str  # the command line
    settings: dict[str, Any] = field(default_factory=dict)  # by benchmark
    report: dict[str, Any] = field(default_factory=dict)  # other findings, by benchmark
    benchmarks: list[dict[str, Any]] = field(default_factory=list)
    untimed: list[dict[str, Any]] = field(default_factory=list)  # entries without ``stats``

    def cells(self) -> dict[str, tuple[dict[str, Any], list[Row]]]:
        """Return the parameters and the rows of each cell, by its title."""
        found: dict[str, tuple[dict[str, Any], list[Row]]] = {}
        for entry in (*self.benchmarks, *self.untimed):
            parameters = dict(entry["params"])
            row = Row(parameters.pop("contestant"), **entry["extra_info"])
            row.seconds = entry.get("stats", {}).get("data", [])
            found.setdefault(entry["group"], (parameters, []))[1].append(row)
        return found

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file; times keep four significant digits."""
        lines = []
        for name, value in vars(self).items():
            entries = ",".join(f"\n{json.dumps(_compact(entry))}" for entry in value) if isinstance(value, list) else ""
            lines.append(f'"{name}": ' + (f"[{entries}]" if isinstance(value, list) else json.dumps(value)))
        with write_atomically(path) as temporary:
            temporary.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Results:
        """Read a file that `write` wrote.

        Raises:
            InputError: the file is not one of benchmark results.
        """
        try:
            results = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
            results.cells()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is not a file of benchmark results: name one that --out wrote") from error
        return results


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry without pytest-benchmark's options, and without digits that are noise."""
    kept = {name: value for name, value in entry.items() if name not in ("options", "param")}
    if "stats" in kept:
        kept["stats"] = {name: _rounded(kept["stats"][name]) for name in STATS}
    kept["extra_info"] = {k: _rounded(v) if k == "cpu_seconds" else v for k, v in kept["extra_info"].items()}
    return kept


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
