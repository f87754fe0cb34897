"""``fastccsa bench``: measure fastccsa beside other implementations, and beside what the machine allows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastccsa.cli.bench_all_pairs import all_pairs_command
from fastccsa.cli.bench_images import images_command
from fastccsa.cli.bench_options import DTYPES, FILE, check_ending, measuring, plot_results, run_and_report, settings_of
from fastccsa.cli.bench_prune import prune_command
from fastccsa.cli.bench_step import step_command

if TYPE_CHECKING:
    from fastccsa.benchmarking.zipped import Cell

MODES = ("forward", "forward+backward")


@click.group("bench")
def bench_command() -> None:
    """Measure fastccsa beside other implementations, and beside what the machine allows."""


bench_command.add_command(all_pairs_command)
bench_command.add_command(images_command)
bench_command.add_command(prune_command)
bench_command.add_command(step_command)


@bench_command.command("zipped")
@click.option("--pairs", "-n", type=click.IntRange(min=1), multiple=True, help="Pairs of a batch; repeatable.")
@click.option("--width", "-d", type=click.IntRange(min=1), multiple=True, help="Columns of the features; repeatable.")
@click.option("--classes", "-c", type=click.IntRange(min=1), multiple=True, help="Columns of the logits; repeatable.")
@click.option("--dtype", type=click.Choice(DTYPES), multiple=True, help="Of logits and features; repeatable.")
@click.option("--mode", type=click.Choice(MODES), multiple=True, help="What a call does; repeatable.")
@click.option("--unweighted", is_flag=True, help="Without weights: the job that other libraries can express too.")
@click.option("--full", is_flag=True, help="All sizes, dtypes and modes: 120 cells.")
@measuring
def zipped_command(
    pairs: tuple[int, ...],
    width: tuple[int, ...],
    classes: tuple[int, ...],
    dtype: tuple[str, ...],
    mode: tuple[str, ...],
    unweighted: bool,
    full: bool,
    **options: Any,
) -> None:
    """Time, memory and error of the zipped loss: fastccsa, eager PyTorch, torch.compile, others, and the floors.

    Without sizes: a small batch, a large one, and the small one without weights, in about a minute. In each round
    every contestant runs once, and another one begins.
    """
    from fastccsa.benchmarking.zipped import run
    from fastccsa.benchmarking.zipped.rivals import RIVALS

    cells = _cells(pairs, width, classes, dtype, mode, unweighted, full)
    settings = settings_of(options, [rival.name for rival in RIVALS[1:]])
    run_and_report(len(cells), options, lambda command, after_cell: run(cells, settings, command, after_cell))


@bench_command.command("show")
@click.argument("results", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--plot", type=FILE, help="Chart of the times, .svg or .png.")
def show_command(results: Path, plot: Path | None) -> None:
    """Print the table of a JSON file that --out of another of these commands wrote; all but `prune`."""
    from fastccsa.benchmarking.results import Results
    from fastccsa.benchmarking.show import show

    check_ending(plot)
    click.echo(show(results))
    if plot is not None:
        plot_results(Results.read(results), plot)


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
