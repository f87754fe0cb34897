"""The trials of a sweep as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastccsa.sweep.study import Trial
from fastccsa.system.files import write_atomically
from fastccsa.system.text import printable, spreadsheet_row

TABLE_FILE = "trials.csv"
UNKNOWN = "-"


def to_text(trials: Sequence[Trial]) -> str:
    """Return the table as text, the best trial first. It has no test scores, so that none can choose a trial."""
    names = sorted({name for trial in trials for name in trial.values})
    head = ("trial", "validation recall, %", "epoch", *names, "minutes", "state")
    rows = [
        (
            trial.folder.name,
            UNKNOWN if trial.recall is None else f"{100 * trial.recall:.1f}",
            UNKNOWN if trial.epoch is None else str(trial.epoch),
            *(_value(trial.values.get(name)) for name in names),
            UNKNOWN if trial.minutes is None else f"{trial.minutes:.1f}",
            trial.state,
        )
        for trial in trials
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)]
    reasons = [f"{trial.folder.name} failed: {trial.reason}" for trial in trials if trial.reason]
    return "".join(f"{printable(line.rstrip())}\n" for line in (*lines, *reasons))


def write_table(folder: Path, trials: Sequence[Trial]) -> Path:
    """Write ``trials.csv`` into the folder of a sweep, and return its path.

    Raises:
        InputError: the folder cannot be written.
    """
    names = sorted({name for trial in trials for name in trial.values})
    path = folder / TABLE_FILE
    with (
        write_atomically(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "state", "validation_recall", "epoch", *names, "minutes", "reason"])
        for trial in trials:
            values = (_plain(trial.values.get(name)) for name in names)
            numbers = (_plain(trial.recall), _plain(trial.epoch), *values, _plain(trial.minutes))
            writer.writerow(spreadsheet_row([trial.folder.name, trial.state, *numbers, trial.reason]))
    return path


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else _plain(value)


def _plain(value: Any) -> str:
    return "" if value is None else str(value)
