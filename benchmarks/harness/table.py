"""Results as a table, with lines about how they were measured."""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.harness.results import FLOOR, OURS, Results, Row

NOT_MEASURED = "not measured"
WIDTH = 1000  # the table is as wide as it needs to be, even where the terminal is narrower
BUSY = 0.5  # load per core above which times mean little
HEADS = ("", "time", "25-75%", "/ fastccsa", "/ floor", "CPU time", "memory", "loss", "gradient")
LEGEND = (
    "time: median of the rounds; 25-75%: its quartiles. / fastccsa, / floor: the time divided by that of fastccsa's "
    "first row, and by the highest floor. CPU time: of all threads and processes. memory: the most held beyond the "
    "inputs. loss: relative error against float64. gradient: largest error relative to the largest entry of that "
    "gradient."
)


def format_seconds(seconds: float) -> str:
    """Format a time with three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / 1e-9)} ns"


def format_bytes(count: float) -> str:
    """Format a size with three digits and a binary unit."""
    for unit in ("B", "KiB", "MiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{_three_digits(count)} {unit}"
        count /= 1024
    return f"{_three_digits(count)} GiB"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def floor_of(rows: Sequence[Row]) -> Row | None:
    """Return the highest floor, because each of them is a lower bound; None if there is none."""
    return max((row for row in rows if row.kind == FLOOR and row.seconds), key=lambda row: row.median, default=None)


def table(results: Results) -> str:
    """Format the table, its footnotes, and the machine and versions it was measured with, as plain text."""
    footnotes: dict[str, int] = {}
    cells = [(title, [_line(row, rows, footnotes) for row in rows]) for title, (_, rows) in results.cells().items()]
    used = [n for n in range(len(HEADS)) if any(line[n] for _, lines in cells for line in lines if n < len(line))]
    grid = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in used:
        grid.add_column(HEADS[column], no_wrap=True, justify="right" if column else "left")
    for title, lines in cells:
        grid.add_section()
        grid.add_row(Text(title, style="bold"))
        for line in lines:
            grid.add_row(*(line[column] for column in used if column < len(line)))
    out = io.StringIO()
    Console(file=out, width=WIDTH, highlight=False, markup=False, color_system=None).print(grid)
    text = [line.rstrip() for line in out.getvalue().splitlines()]
    notes = [f"({number}) {note}" for note, number in footnotes.items()]
    return "\n".join([*text, *notes, "", LEGEND, "", *origin(results)])


def _line(row: Row, rows: Sequence[Row], footnotes: dict[str, int]) -> list[str]:
    def mark(text: str) -> str:
        return f" ({footnotes.setdefault(text, len(footnotes) + 1)})" if text else ""

    name = f"  {row.contestant}"
    if row.not_measured:
        return [name, NOT_MEASURED + mark(row.not_measured)]
    times = [""] * 5
    if row.seconds:
        base, floor = next((one for one in rows if one.kind == OURS and one.seconds), row), floor_of(rows)
        times = [
            format_seconds(row.median),
            " - ".join(map(format_seconds, row.quartiles)),
            "" if row is base else f"{row.median / base.median:.2f}",
            "" if floor is None or row.kind == FLOOR else f"{row.median / floor.median:.2f}",
            format_seconds(statistics.median(row.cpu_seconds)) if row.cpu_seconds else "",
        ]
    figures = ((row.peak_bytes, format_bytes), (row.loss_error, "{:.0e}".format), (row.gradient_error, "{:.0e}".format))
    return [name + mark(row.note), *times, *("" if value is None else text(value) for value, text in figures)]


def origin(results: Results) -> list[str]:
    """Describe the machine, the versions and the command of the results."""
    machine, gpu = results.machine_info, results.machine_info["gpu"]
    device = f"{gpu['name']} (compute capability {gpu['capability']})" if gpu else "CPU"
    threads = {settings.get("threads") for settings in results.settings.values()} - {None}
    cores = f"{machine['cores']} cores" + "".join(f", {count} in use" for count in sorted(threads))
    lines = [
        f"{device}; {machine['cpu']}, {cores}; {format_bytes(machine['memory_bytes'])}; {machine['system']}; "
        f"{machine['name']}",
        ", ".join(f"{name} {version or 'not installed'}" for name, version in machine["versions"].items()),
        f"commit {results.commit_info['id'] or 'not known'}; {results.datetime}; {results.command}",
    ]
    if machine["environment"]:
        lines.append("environment: " + " ".join(f"{key}={value}" for key, value in machine["environment"].items()))
    if machine["load_before"] > BUSY * (machine["cores"] or 1):
        lines.append(
            f"WARNING: the machine was busy with other work (load {machine['load_before']} before the run); "
            "times and their ratios mean little"
        )
    return lines
