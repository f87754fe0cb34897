"""The results of a benchmark as one table, and as lines about how they were measured."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastccsa.benchmarking.results import FLOOR, OURS, CellResult, Measurement, Results

__all__ = ["NOT_MEASURED", "format_bytes", "format_seconds", "origin", "table"]

NOT_MEASURED = "not measured"
WIDTH = 1000  # the table is as wide as it needs to be, also where the terminal is narrower
BUSY = 0.5  # runnable programs per core from which on times mean little

LEGEND = (
    "time: median of the rounds; 25-75%: its quartiles. / fastccsa: time in times of fastccsa's. / floor: time in "
    "times of the highest floor. memory: the most held beyond the inputs. loss: relative error against float64. "
    "gradient: largest error relative to the largest entry of that gradient."
)


def format_seconds(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


def format_bytes(count: float) -> str:
    """Three digits and a binary unit."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{_three_digits(count)} {unit}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


class _Footnotes:
    """Numbers for texts; the same text keeps its number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def mark(self, text: str) -> str:
        if text not in self.texts:
            self.texts.append(text)
        return f"({self.texts.index(text) + 1})"


def table(results: Results) -> str:
    """The table, its footnotes, and what it was measured on and with; plain text."""
    footnotes = _Footnotes()
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    grid.add_column("", no_wrap=True)
    heads = ("time", "25-75%", "/ fastccsa", "/ floor", "memory", "loss", "gradient")
    for head in heads:
        grid.add_column(head, justify="right", no_wrap=True)
    for number, cell in enumerate(results.cells):
        if number:
            grid.add_section()
        grid.add_row(Text(cell.cell["title"], style="bold"))
        for measurement in cell.measurements:
            grid.add_row(*_row(cell, measurement, footnotes))
    out = io.StringIO()
    Console(file=out, width=WIDTH, highlight=False, markup=False, color_system=None).print(grid)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    notes = [f"({number}) {text}" for number, text in enumerate(footnotes.texts, 1)]
    return "\n".join([*lines, *notes, "", LEGEND, "", *origin(vars(results), results.settings["threads"])])


def _row(cell: CellResult, row: Measurement, footnotes: _Footnotes) -> list[str]:
    name = f"  {row.contestant}"
    if row.not_measured or (not row.seconds and row.loss_error is None):
        reason = row.not_measured or "no reason is recorded"
        return [name, f"{NOT_MEASURED} {footnotes.mark(reason)}"]
    if row.note:
        name += f" {footnotes.mark(row.note)}"
    return [
        name,
        *(_times(cell, row) if row.seconds else [""] * 4),
        _or_blank(row.peak_bytes, format_bytes),
        _or_blank(row.loss_error, "{:.0e}".format),
        _or_blank(row.gradient_error, "{:.0e}".format),
    ]


def _times(cell: CellResult, row: Measurement) -> list[str]:
    low, median, high = row.quartiles
    floor = cell.floor
    return [
        format_seconds(median),
        f"{format_seconds(low)} - {format_seconds(high)}",
        "" if row.kind == OURS else _or_blank(cell.ratio(row), lambda ratio: f"{ratio:.2f}"),
        "" if row.kind == FLOOR or floor is None else f"{median / floor.median:.2f}",
    ]


def _or_blank(value: float | None, text: Callable[[float], str]) -> str:
    return "" if value is None else text(value)


def origin(about: Mapping[str, Any], threads: int | None) -> list[str]:
    """Where the numbers come from, a line each.

    Args:
        about: machine, versions, commit, date and command, as in `Results`.
        threads: of the processor that were used; None where that was not noted.
    """
    machine, gpu = about["machine"], about["machine"]["gpu"]
    device = f"{gpu['name']} (compute capability {gpu['capability']})" if gpu else "CPU"
    lines = [
        f"{device}; {machine['cpu']}, {machine['cores']} cores{f', {threads} in use' if threads else ''}; "
        f"{format_bytes(machine['memory_bytes'])}; {machine['system']}; {machine['name']}",
        ", ".join(f"{name} {version or 'not installed'}" for name, version in about["versions"].items()),
        f"commit {about['commit'] or 'not known'}; {about['date']}; {about['command']}",
    ]
    if machine["environment"]:
        lines.append("environment: " + " ".join(f"{key}={value}" for key, value in machine["environment"].items()))
    if machine["load_before"] > BUSY * (machine["cores"] or 1):
        lines.append(
            f"WARNING: the machine was busy with other work (load {machine['load_before']} before the run); "
            "times and their ratios mean little"
        )
    return lines
