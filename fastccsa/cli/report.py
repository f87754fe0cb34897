"""``fastccsa report``: print a table of finished runs, and write a page about them."""

from __future__ import annotations

from pathlib import Path

import click

from fastccsa.cli.options import choice
from fastccsa.reporting import TableFormat


@click.command()
@click.argument("runs", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Page to write.  [default: RUNS/report.html]"
)
@click.option(
    "--format",
    "table_format",
    type=choice(TableFormat),
    default="text",
    show_default=True,
    help="Format of the printed table.",
)
@click.option(
    "--images/--no-images",
    default=True,
    show_default=True,
    help="Show some images of the dataset in the page, for Grad-CAM; omit them if they may not be shared.",
)
def report_command(runs: Path, out: Path | None, table_format: TableFormat, images: bool) -> None:
    """Print the table of the runs in the folder RUNS (or of a single run), and write a page about them.

    Experiments appear as means over their seeds, next to the paper's numbers.

    The page is one HTML file that needs no network: the table, confusion matrices, curves, sampling
    probabilities and weights, features, distances, calibration, Grad-CAM and settings. It needs only the run
    folders; Grad-CAM also needs the manifest and its images. A note.txt in RUNS is shown at the top.
    """
    from fastccsa.reporting import report

    page = report(runs, out, table_format, images)
    click.echo(f"Wrote {page}", err=True)  # stdout has only the table
