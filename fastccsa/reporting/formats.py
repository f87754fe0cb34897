"""The table in formats for other programs: LaTeX and CSV."""

from __future__ import annotations

import csv
import io
import re

from fastccsa.reporting.sections.scores import ScoreCell, ScoreRow
from fastccsa.reporting.table import SETTINGS, ScoreTable
from fastccsa.system.text import printable, spreadsheet_row

_SIGNS = {"\\": r"\textbackslash{}", "±": r"$\pm$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def to_latex(table: ScoreTable) -> str:
    """Return the table as a LaTeX ``table`` that needs no packages, with the best value of each column in bold."""
    left = 1 + len(table.settings)
    lines = []
    for name, settings, cells in table.rows:
        numbers = [f"\\textbf{{{_latex(cell.text)}}}" if cell.best else _latex(cell.text) for cell in cells]
        lines.append([*map(_latex, (name, *settings)), *numbers])
    caption = " ".join(map(_latex, (f"{table.caption}.", *table.notes)))
    return "\n".join(
        [
            r"\begin{table}",
            f"\\caption{{{caption}}}",
            f"\\begin{{tabular}}{{{'l' * left}{'r' * (len(table.header) - left)}}}",
            r"\hline",
            _latex_row([_latex(head) for head in table.header]),
            r"\hline",
            *map(_latex_row, lines),
            r"\hline",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def to_csv(table: ScoreTable) -> str:
    """Return the numbers of the table as CSV, in %, with one row per experiment or other run.

    For each domain and ``avg`` there are the mean over seeds, its standard error (``_se``), the limits of its 95 %
    interval (``_low``, ``_high``), the paper's number (``_paper``) and the difference (``_difference``); missing values
    are empty. Names that spreadsheet programs would take for formulas are quoted.
    """
    names = table.header[1 + len(table.settings) :]
    kinds = ("", "_se", "_low", "_high", "_paper", "_difference")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    heads = (name + kind for name in names for kind in kinds)
    writer.writerow(spreadsheet_row(["run", *SETTINGS, "left_out", "seeds", *heads]))
    for row in table.scores:
        numbers = [value for cell in row.cells for value in _numbers(cell)]
        cells = [row.group.name, *row.settings, _left_out(row), len(row.group.runs), *numbers]
        writer.writerow(spreadsheet_row(cells))
    return file.getvalue()


def _numbers(cell: ScoreCell) -> list[str]:
    here, error = (cell.here.mean, cell.here.error) if cell.here else (None, None)
    interval = cell.here.interval if cell.here else None
    low, high = (interval.low, interval.high) if interval else (None, None)
    values = [None if value is None else 100 * value for value in (here, error, low, high)]
    return ["" if value is None else f"{value:.4f}" for value in (*values, cell.paper, cell.difference)]


def _left_out(row: ScoreRow) -> str:
    return " ".join(row.group.runs[0].config.exclude)


def _latex_row(cells: list[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _latex(text: str) -> str:
    return re.sub(r"[\\±~^&%$#_{}]", lambda sign: _SIGNS.get(sign[0], "\\" + sign[0]), printable(text))
