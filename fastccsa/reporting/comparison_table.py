"""Comparisons of runs as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fastccsa.evaluation.intervals import Interval
from fastccsa.evaluation.metrics import Metric
from fastccsa.reporting.comparison import Cells, Comparison, corrected
from fastccsa.system import machine
from fastccsa.system.text import markdown, printable, spreadsheet_row

UNDEFINED = "-"
FIELDS = ("metric", "arm", "minus", "group", "estimate", "low", "high", "seeds", "p", "p_holm")
_NOTE = (
    "[95 % intervals]. p: of no difference; the second one is corrected for all differences of its table (Holm). "
    f"{UNDEFINED}: not defined, such as AUROC where only one class is shown."
)


@dataclass(frozen=True)
class MetricTable:
    """One metric of all arms.

    Attributes:
        metric: the metric.
        name: its name with that of the positive class.
        arms: cells of each arm.
        beside: cells of what the arms are compared with in this table, by title, such as acting on all images.
        differences: the two arms and the cells of each difference.
        p_holm: corrected p-values of each difference, by group.
    """

    metric: Metric
    name: str
    arms: Mapping[str, Cells]
    beside: Mapping[str, Cells]
    differences: Sequence[tuple[str, str, Cells]]
    p_holm: Sequence[Mapping[str, float]]


def compare(
    comparison: Comparison, metrics: Sequence[Metric], arms: Sequence[str], against: Sequence[str], positive: str | None
) -> list[MetricTable]:
    """Make the tables of a comparison; every arm after one of ``against`` is compared with it.

    Metrics that are defined nowhere are left out.

    Raises:
        InputError: two arms that are to be compared have no seed in common.
    """
    pairs = [(arm, other) for other in against for arm in arms if arm != other and not _reverse(arm, other, against)]
    for arm, other in pairs:
        comparison.check_common_seeds(arm, other)
    tables = []
    for metric in metrics:
        rows = {arm: comparison.row(metric.key, arm) for arm in arms}
        if all(cell is None for row in rows.values() for cell in row.values()):
            continue
        differences = [(arm, other, comparison.row(metric.key, arm, other)) for arm, other in pairs]
        found = corrected([cells for _, _, cells in differences])
        # They are the same for all arms, except that an arm may have other seeds.
        beside = {each.title: comparison.row(each.key, arms[0]) for each in metric.beside}
        tables.append(MetricTable(metric, metric.name(positive), rows, beside, differences, found))
    return tables


def _reverse(arm: str, other: str, against: Sequence[str]) -> bool:
    """Return whether the opposite difference is shown already."""
    return arm in against and against.index(arm) < against.index(other)


def as_records(tables: Sequence[MetricTable]) -> Iterator[dict[str, Any]]:
    """Yield one record with `FIELDS` for each number of the tables; values in the metric's own unit, mostly [0, 1]."""
    for table in tables:
        rows: list[tuple[str, str | None, Cells, Mapping[str, float]]] = [
            (arm, None, cells, {}) for arm, cells in (*table.arms.items(), *table.beside.items())
        ]
        rows += [(*each, p) for each, p in zip(table.differences, table.p_holm, strict=True)]
        for arm, minus, cells, p_holm in rows:
            for group, cell in cells.items():
                if cell is not None:
                    values = (cell.estimate, cell.low, cell.high, cell.seeds, cell.p, p_holm.get(group))
                    yield dict(zip(FIELDS, (table.metric.key, arm, minus, group, *values), strict=True))


def to_csv(tables: Sequence[MetricTable]) -> str:
    """Return the records as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(FIELDS)
    # Names of runs come first; a difference below zero is a number, and no formula.
    for record in as_records(tables):
        names, numbers = list(record.values())[:4], list(record.values())[4:]
        writer.writerow([*spreadsheet_row("" if name is None else name for name in names), *numbers])
    return file.getvalue()


def to_json(comparison: Comparison, tables: Sequence[MetricTable]) -> str:
    """Return the records, the groups of domains and how samples were drawn as JSON."""
    records = list(as_records(tables))
    about = {"commit": machine.commit(), "samples": comparison.remark, "groups": comparison.groups_by_seed}
    return json.dumps({**about, "results": records}, indent=1) + "\n"


def to_markdown(comparison: Comparison, tables: Sequence[MetricTable]) -> str:
    """Return the tables as Markdown."""
    parts = []
    for table in tables:
        lines = list(_lines(comparison, table))
        # The first cell of a row and the whole head have names from outside; the others are numbers of ours.
        named = [[markdown(row[0]), *row[1:]] for row in lines[1:]]
        rows = [list(map(markdown, lines[0])), ["---"] * len(lines[0]), *named]
        body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        parts.append(f"**{markdown(_capital(table.name))}**\n\n{body}")
    return "\n\n".join([*parts, markdown(" ".join(_notes(comparison)))]) + "\n"


def print_text(comparison: Comparison, tables: Sequence[MetricTable]) -> None:
    """Print the tables on stdout."""
    # Wide, so that numbers are not truncated on a narrow terminal or in a pipe.
    console = Console(width=1000, highlight=False, soft_wrap=True)
    for table in tables:
        head, *lines = _lines(comparison, table)
        grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in head:
            grid.add_column(Text(printable(name)), no_wrap=True)
        for line in lines:
            grid.add_row(*(Text(printable(cell)) for cell in line))
        console.print(Text(_capital(table.name), style="bold"))
        console.print(grid)
        console.print()
    for note in _notes(comparison):
        console.print(Text(note, style="dim"))


def _lines(comparison: Comparison, table: MetricTable) -> Iterator[list[str]]:
    """Yield the head and the rows of a table."""
    every = [*table.arms.values(), *(cells for _, _, cells in table.differences)]
    groups = [group for group in comparison.groups if any(row[group] is not None for row in every)]
    yield ["run", *(comparison.groups[group] for group in groups)]
    for arm, cells in (*table.arms.items(), *table.beside.items()):
        yield [arm, *(_text(cells[group], table.metric) for group in groups)]
    for (arm, other, cells), p_holm in zip(table.differences, table.p_holm, strict=True):
        yield [f"{arm} - {other}", *(_text(cells[group], table.metric, p_holm.get(group)) for group in groups)]


def _text(cell: Interval | None, metric: Metric, p_holm: float | None = None) -> str:
    if cell is None:
        return UNDEFINED
    text = cell.text(metric.scale, 1 if metric.scale == 100 else 3, signed=cell.p is not None)
    return text if cell.p is None or p_holm is None else f"{text} p {_p(cell.p)}, {_p(p_holm)}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _notes(comparison: Comparison) -> Iterator[str]:
    yield _NOTE
    yield f"Intervals: {comparison.remark} and, with three seeds or more, Student's t over the seeds."
    yield comparison.groups_text


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
