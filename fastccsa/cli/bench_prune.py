"""``fastccsa bench prune``: a pruned run beside the run it was made of."""

from __future__ import annotations

from pathlib import Path

import click

from fastccsa.cli.bench_options import FILE, about, check_ending


@click.command("prune")
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), required=True, help="Pruned run.")
@click.option("--rounds", type=click.IntRange(min=3), default=30, show_default=True, help="Rounds at most.")
@click.option("--seconds", type=click.FloatRange(min=0), default=60.0, show_default=True, help="Budget for the rounds.")
@click.option("--out", type=FILE, help="JSON of everything.")
@click.option("--plot", type=FILE, help="Chart of channels by layer and of size by threshold, .svg or .png.")
def prune_command(run: Path, rounds: int, seconds: float, out: Path | None, plot: Path | None) -> None:
    """Size, recall and latency of a pruned run beside the run it was made of, and its size by threshold.

    Latency: PyTorch and ONNX Runtime on the CPU, 1 and 32 images, 1 and 2 threads; in each round every one of
    them runs once, and another one begins. Medians are printed.
    """
    check_ending(plot)
    import torch

    from fastccsa.benchmarking.pruned import as_text, draw, report_pruning

    beginning = about(torch.device("cpu"))
    report = report_pruning(run, rounds, seconds)
    click.echo(as_text(report))
    if out is not None:
        report.write(out, beginning)
    if plot is not None:
        draw(report, plot)
