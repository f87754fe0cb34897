"""``fastccsa bench all-pairs``: the loss over all pairs beside its rivals, in time, in memory and in errors."""

from __future__ import annotations

from typing import Any

import click

from fastccsa.cli.bench_options import DTYPES, measuring, run_and_report, settings_of

LABELS = ("uniform", "table1")


@click.command("all-pairs")
@click.option("--rows", "-n", type=click.IntRange(min=1), multiple=True, help="Rows of either side; repeatable.")
@click.option("--width", "-d", type=click.IntRange(min=1), multiple=True, help="Columns of the features; repeatable.")
@click.option(
    "--labels",
    type=click.Choice(LABELS),
    multiple=True,
    help="Seven classes alike, or as often as in the paper's Table 1; repeatable.  [default: both]",
)
@click.option("--dtype", type=click.Choice(DTYPES), multiple=True, help="Of the features; repeatable.")
@click.option(
    "--memory",
    type=click.IntRange(min=1),
    help="Rows of the second side, as past features, to which no gradient flows.  [default: as many as --rows]",
)
@click.option("--full", is_flag=True, help="All sizes: 30 cells.")
@click.option("--hard", is_flag=True, help="Errors alone, where distances are small or 0.")
@click.option(
    "--longest",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds; where the dense products alone would take longer, nothing is measured.",
)
@measuring
def all_pairs_command(
    rows: tuple[int, ...],
    width: tuple[int, ...],
    labels: tuple[str, ...],
    dtype: tuple[str, ...],
    memory: int | None,
    full: bool,
    hard: bool,
    longest: float,
    **options: Any,
) -> None:
    """Time, memory and error of the loss over all pairs, with gradients: fastccsa, its rivals, and dense products.

    Without sizes: 4096 x 4096 pairs of width 512; with --memory alone a batch of 32 against it. What does not fit into
    memory is not tried, and the table says so.
    """
    from fastccsa.benchmarking.all_pairs import cells, measure
    from fastccsa.benchmarking.all_pairs import hard as hard_cases
    from fastccsa.benchmarking.all_pairs.rivals import RIVALS

    sized = any((rows, width, labels, dtype, memory))
    if full + hard + sized > 1:
        raise click.UsageError("--full, --hard, and sizes exclude each other")
    if hard and options["plot"] is not None:
        raise click.UsageError("--hard measures errors alone: there are no times to --plot")
    settings = settings_of(options, [rival.name for rival in RIVALS[1:]])
    if hard:
        count = len(hard_cases.CASES)
        run_and_report(count, options, lambda command, after: hard_cases.run_hard(settings, command, after))
        return
    chosen = cells.sweep() if full else cells.quick()
    if sized:
        rows = rows or ((32,) if memory else (4096,))
        chosen = cells.product(rows, width or (512,), labels or LABELS, dtype or ("float32",), memory or 0)
    run_and_report(len(chosen), options, lambda command, after: measure.run(chosen, settings, command, after, longest))
