"""``fastccsa report``: finished runs in, a table and a page out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command()
@click.argument("runs", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The page.  [default: RUNS/report.html]")
@click.option(
    "--format",
    "table_format",
    type=click.Choice(["text", "markdown"]),
    default="text",
    show_default=True,
    help="How the table is printed.",
)
def report_command(runs: Path, out: Path | None, table_format: Literal["text", "markdown"]) -> None:
    """Print the table of the runs in the folder RUNS (or of one run), and write a page about them.

    The page is one HTML file with the table, confusion matrices, curves and settings; it needs no network.
    A note.txt in RUNS is shown at its head.
    """
    from fastccsa.reporting import report

    page = report(runs, out, table_format)
    click.echo(f"Wrote {page}", err=True)  # stdout holds the table alone
