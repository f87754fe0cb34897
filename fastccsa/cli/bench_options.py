"""What the commands of ``fastccsa bench`` share: the options that say how to measure, and what is done with results."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import torch

    from fastccsa.benchmarking.results import Results
    from fastccsa.benchmarking.session import Settings

FILE = click.Path(path_type=Path, dir_okay=False)
# Spelled out here, since reading them where they are used would import torch for --help.
DTYPES = ("float32", "bfloat16", "float16", "float64")

# How each benchmark is drawn: along the horizontal axis, from column to column, from row to row.
CHARTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "zipped": ("pairs", "width", ("mode", "dtype", "classes", "weighted")),
    "all-pairs": ("rows", "width", ("labels", "dtype")),
}

_OPTIONS = (
    click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N."),
    click.option("--threads", type=click.IntRange(min=1), help="Of torch on the CPU.  [default: torch's choice]"),
    click.option(
        "--rounds", type=click.IntRange(min=3), default=30, show_default=True, help="Rounds of a cell at most."
    ),
    click.option(
        "--seconds",
        type=click.FloatRange(min=0),
        default=8.0,
        show_default=True,
        help="Budget for the rounds of a cell.",
    ),
    click.option("--minutes", type=click.FloatRange(min=0), help="Budget for everything.  [default: none]"),
    click.option(
        "--memory-limit",
        type=click.FloatRange(min=0),
        metavar="GIB",
        help="What would hold more is not tried.  [default: four fifths of what is available]",
    ),
    click.option("--rival", multiple=True, help="Measure only fastccsa and this one; repeatable.  [default: all]"),
    click.option("--machine", help="What to call this machine.  [default: its name in the network]"),
    click.option("--out", type=FILE, help="JSON of the results, written after each cell."),
    click.option("--plot", type=FILE, help="Chart of the times, .svg or .png."),
)
Command = TypeVar("Command", bound=Callable[..., Any])


def measuring(command: Command) -> Command:
    """Give a command the options that say how to measure."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def settings_of(options: dict[str, Any], rivals: Collection[str]) -> Settings:
    """Make the settings of the options of `measuring`; ``rivals`` are the names there are."""
    from fastccsa.benchmarking.session import Settings
    from fastccsa.system.devices import pick_device

    for name in options["rival"]:
        if name not in rivals:
            raise click.BadParameter(f"{name!r} is none of {', '.join(map(repr, rivals))}", param_hint="--rival")
    check_ending(options["plot"])
    return Settings(
        device=str(pick_device(options["device"])),
        threads=options["threads"],
        rounds=options["rounds"],
        seconds=options["seconds"],
        minutes=options["minutes"],
        machine=options["machine"],
        rivals=options["rival"] or None,
        memory_limit=options["memory_limit"],
    )


def run_and_report(
    cells: int, options: dict[str, Any], run: Callable[[str, Callable[[Results], None]], Results]
) -> None:
    """Measure with a progress bar, print the table, and write what was asked for.

    Args:
        cells: how many there are.
        options: of `measuring`.
        run: measures, given what was typed and what is to be called after each cell.
    """
    from tqdm import tqdm

    from fastccsa.benchmarking.table import table

    with tqdm(total=cells, unit="cell", disable=None) as bar:

        def after_cell(results: Results) -> None:
            bar.update()
            if options["out"] is not None:
                results.write(options["out"])

        results = run(shlex.join(["fastccsa", *sys.argv[1:]]), after_cell)
    click.echo(table(results))
    if options["plot"] is not None:
        plot_results(results, options["plot"])
    failed = [cell["fastccsa"].not_measured or "" for cell in results.cells]
    if any(reason.startswith("failed") for reason in failed):
        raise click.ClickException("fastccsa itself failed in a cell; see the table")


def about(device: torch.device) -> dict[str, Any]:
    """What a file of results says of a run beside its figures: machine, versions, commit, date, command."""
    from fastccsa.system import machine

    return {
        "machine": machine.describe(device),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "date": machine.now(),
        "command": shlex.join(["fastccsa", *sys.argv[1:]]),
    }


def check_ending(plot: Path | None) -> None:
    """Refuse a wrong ending before anything is measured."""
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise click.BadParameter(f"{plot} must end in .svg or .png", param_hint="--plot")


def plot_results(results: Results, path: Path) -> None:
    """Draw the chart that is usual for this benchmark."""
    if results.benchmark not in CHARTS:
        raise click.BadParameter(f"there are no times of {results.benchmark} to draw", param_hint="--plot")
    from fastccsa.benchmarking.plot import plot

    x, columns, rows = CHARTS[results.benchmark]
    plot(results, path, x=x, columns=columns, rows=rows)
    click.echo(f"Wrote {path}", err=True)
