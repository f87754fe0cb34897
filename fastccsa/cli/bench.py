"""``fastccsa bench``: measure fastccsa beside other implementations, and beside what the machine allows."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fastccsa.benchmarking.results import Results
    from fastccsa.benchmarking.zipped import Cell

FILE = click.Path(path_type=Path, dir_okay=False)
# Spelled out here, since reading them where they are used would import torch for --help.
DTYPES = ("float32", "bfloat16", "float16", "float64")
MODES = ("forward", "forward+backward")


@click.group("bench")
def bench_command() -> None:
    """Measure fastccsa beside other implementations, and beside what the machine allows."""


@bench_command.command("zipped")
@click.option("--pairs", "-n", type=click.IntRange(min=1), multiple=True, help="Pairs of a batch; repeatable.")
@click.option("--width", "-d", type=click.IntRange(min=1), multiple=True, help="Columns of the features; repeatable.")
@click.option("--classes", "-c", type=click.IntRange(min=1), multiple=True, help="Columns of the logits; repeatable.")
@click.option("--dtype", type=click.Choice(DTYPES), multiple=True, help="Of logits and features; repeatable.")
@click.option("--mode", type=click.Choice(MODES), multiple=True, help="What a call does; repeatable.")
@click.option("--unweighted", is_flag=True, help="Without weights: the job that other libraries can express too.")
@click.option("--full", is_flag=True, help="All sizes, dtypes and modes: 120 cells.")
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="Of torch on the CPU.  [default: torch's choice]")
@click.option("--rounds", type=click.IntRange(min=3), default=30, show_default=True, help="Rounds of a cell at most.")
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=8.0, show_default=True, help="Budget for the rounds of a cell."
)
@click.option("--minutes", type=click.FloatRange(min=0), help="Budget for everything.  [default: none]")
@click.option("--rival", multiple=True, help="Measure only fastccsa and this one; repeatable.  [default: all]")
@click.option("--machine", help="What to call this machine.  [default: its name in the network]")
@click.option("--out", type=FILE, help="JSON of the results, written after each cell.")
@click.option("--plot", type=FILE, help="Chart of the times, .svg or .png.")
def zipped_command(
    pairs: tuple[int, ...],
    width: tuple[int, ...],
    classes: tuple[int, ...],
    dtype: tuple[str, ...],
    mode: tuple[str, ...],
    unweighted: bool,
    full: bool,
    device: str,
    threads: int | None,
    rounds: int,
    seconds: float,
    minutes: float | None,
    rival: tuple[str, ...],
    machine: str | None,
    out: Path | None,
    plot: Path | None,
) -> None:
    """Time, memory and error of the zipped loss: fastccsa, eager PyTorch, torch.compile, others, and the floors.

    Without sizes: a small batch, a large one, and the small one without weights, in about a minute. In each round
    every contestant runs once, and another one begins.
    """
    from tqdm import tqdm

    from fastccsa.benchmarking.table import table
    from fastccsa.benchmarking.zipped import Settings, run
    from fastccsa.hardware import pick_device

    cells = _cells(pairs, width, classes, dtype, mode, unweighted, full)
    settings = Settings(
        device=str(pick_device(device)),
        threads=threads,
        rounds=rounds,
        seconds=seconds,
        minutes=minutes,
        machine=machine,
        rivals=_known(rival) or None,
    )
    _check_ending(plot)
    with tqdm(total=len(cells), unit="cell", disable=None) as bar:

        def after_cell(results: Results) -> None:
            bar.update()
            if out is not None:
                results.write(out)

        results = run(cells, settings, shlex.join(["fastccsa", *sys.argv[1:]]), after_cell)
    click.echo(table(results))
    if plot is not None:
        _plot(results, plot)
    failed = [cell["fastccsa"].not_measured or "" for cell in results.cells]
    if any(reason.startswith("failed") for reason in failed):
        raise click.ClickException("fastccsa itself failed in a cell; see the table")


@bench_command.command("show")
@click.argument("results", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--plot", type=FILE, help="Chart of the times, .svg or .png.")
def show_command(results: Path, plot: Path | None) -> None:
    """Print the table of a JSON file that --out wrote."""
    from fastccsa.benchmarking.results import Results
    from fastccsa.benchmarking.table import table

    _check_ending(plot)
    read = Results.read(results)
    click.echo(table(read))
    if plot is not None:
        _plot(read, plot)


def _cells(
    pairs: tuple[int, ...],
    width: tuple[int, ...],
    classes: tuple[int, ...],
    dtype: tuple[str, ...],
    mode: tuple[str, ...],
    unweighted: bool,
    full: bool,
) -> list[Cell]:
    """The cells that were asked for."""
    from fastccsa.benchmarking.zipped import BACKWARD, cells

    chosen = any((pairs, width, classes, dtype, mode, unweighted))
    if full and chosen:
        raise click.UsageError("--full is every size; leave --pairs, --width, --classes, --dtype and --mode away")
    if full:
        return cells.sweep()
    if not chosen:
        return cells.quick()
    return cells.product(
        pairs or (32, 65536),
        width or (512,),
        classes or (7,),
        dtype or ("float32",),
        mode or (BACKWARD,),
        not unweighted,
    )


def _known(rivals: tuple[str, ...]) -> tuple[str, ...]:
    """`rivals`, all of which exist."""
    from fastccsa.benchmarking.zipped.rivals import RIVALS

    names = [rival.name for rival in RIVALS[1:]]
    for name in rivals:
        if name not in names:
            raise click.BadParameter(f"{name!r} is none of {', '.join(map(repr, names))}", param_hint="--rival")
    return rivals


def _check_ending(plot: Path | None) -> None:
    """Refuse a wrong ending before anything is measured."""
    if plot is not None and plot.suffix not in (".svg", ".png"):
        raise click.BadParameter(f"{plot} must end in .svg or .png", param_hint="--plot")


def _plot(results: Results, path: Path) -> None:
    from fastccsa.benchmarking.plot import plot

    plot(results, path, x="pairs", columns="width", rows=("mode", "dtype", "classes", "weighted"))
    click.echo(f"Wrote {path}", err=True)
