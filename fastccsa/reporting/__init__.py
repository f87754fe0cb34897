"""From the folders of finished runs to one table and one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastccsa.system.extras import install_advice
from fastccsa.system.files import write_atomically

with install_advice():
    from fastccsa.reporting.formats import to_csv, to_latex
    from fastccsa.reporting.page import render_page
    from fastccsa.reporting.table import ScoreTable, print_text, score_table, to_markdown, to_text
    from fastccsa.runs.records import Run, RunFolder, read_runs

__all__ = [
    "Run",
    "RunFolder",
    "ScoreTable",
    "print_text",
    "read_runs",
    "report",
    "score_table",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_text",
]

PAGE_FILE = "report.html"

TableFormat = Literal["text", "markdown", "latex", "csv"]


def report(
    runs: str | Path,
    out: str | Path | None = None,
    table_format: TableFormat = "text",
    images: bool = True,
) -> Path:
    """Print the table of the runs in a folder, and write their HTML page.

    Args:
        runs: folder of run folders, or one run folder. A ``note.txt`` in it heads the page.
        out: the page; ``report.html`` in ``runs`` by default.
        table_format: how the table is printed on stdout.
        images: put some of the data set's images into the page, under Grad-CAM.

    Returns:
        Where the page is. It is one file and needs no network.

    Raises:
        InputError: no finished run is there, a file of one is broken, or ``out`` cannot be written.
    """
    folder = read_runs(Path(runs))
    table = score_table(folder)
    page = render_page(folder, table, images=images, progress=True)
    out = Path(out) if out else folder.path / PAGE_FILE
    with write_atomically(out) as file:
        file.write_text(page, encoding="utf-8")
    formats = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}
    if table_format == "text":
        print_text(table)
    else:
        print(formats[table_format](table), end="")
    return out
