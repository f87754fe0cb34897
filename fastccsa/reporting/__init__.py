"""Reports: one table and one HTML page from the folders of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastccsa.system.extras import install_advice
from fastccsa.system.files import write_atomically
from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.reporting.formats import to_csv, to_latex
    from fastccsa.reporting.table import ScoreTable, print_text, score_table, to_markdown, to_text
    from fastccsa.runs.records import Run, RunFolder, read_runs

__all__ = [
    "ComparisonFormat",
    "Run",
    "RunFolder",
    "ScoreTable",
    "TableFormat",
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
ComparisonFormat = Literal["text", "markdown", "csv", "json"]

# These load torch, pandas, matplotlib and more; the command line's --help needs only the names of formats.
__getattr__ = lazy_names(
    __name__,
    {
        "Run": "fastccsa.runs.records",
        "RunFolder": "fastccsa.runs.records",
        "ScoreTable": "fastccsa.reporting.table",
        "print_text": "fastccsa.reporting.table",
        "read_runs": "fastccsa.runs.records",
        "score_table": "fastccsa.reporting.table",
        "to_csv": "fastccsa.reporting.formats",
        "to_latex": "fastccsa.reporting.formats",
        "to_markdown": "fastccsa.reporting.table",
        "to_text": "fastccsa.reporting.table",
    },
)


def report(
    runs: str | Path,
    out: str | Path | None = None,
    table_format: TableFormat = "text",
    images: bool = True,
) -> Path:
    """Print the table of the runs in a folder, and write their HTML page.

    Args:
        runs: folder of run folders, or one run folder. The page begins with the text of its ``note.txt``, if any.
        out: file to write the page to; ``report.html`` in ``runs`` by default.
        table_format: how the table is printed on stdout.
        images: show some images of the data set on the page, under Grad-CAM.

    Returns:
        The path of the page, which is a single file that needs no network.

    Raises:
        InputError: there is no finished run, a file of a run is broken, or ``out`` cannot be written.
    """
    with install_advice():
        from fastccsa.reporting.formats import to_csv, to_latex
        from fastccsa.reporting.page import render_page
        from fastccsa.reporting.table import print_text, score_table, to_markdown
        from fastccsa.runs.records import read_runs

    folder = read_runs(Path(runs))
    table = score_table(folder)
    page = render_page(folder, table, images=images, progress=True)
    out = Path(out) if out else folder.path / PAGE_FILE
    with write_atomically(out) as file:
        file.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files may not be UTF-8
    formats = {"markdown": to_markdown, "latex": to_latex, "csv": to_csv}
    if table_format == "text":
        print_text(table)
    else:
        print(formats[table_format](table), end="")
    return out
