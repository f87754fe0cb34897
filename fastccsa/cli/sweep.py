"""``fastccsa sweep``: search for settings of the training with a fixed budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fastccsa.cli.options import FiniteRange, given_options
from fastccsa.cli.train import check_used, command_of, train_command

_OWN = ("out", "time_limit")


@click.command("sweep")
@click.option(
    "--out", required=True, help="Folder of the sweep, with a run folder for each trial; repeating resumes it."
)
@click.option(
    "--vary",
    multiple=True,
    required=True,
    help="Setting to vary, as NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C; repeatable. Names are those of the "
    "options of train.",
)
@click.option(
    "--trials", type=click.IntRange(1, 10**5), default=20, show_default=True, help="Trials of all calls together."
)
@click.option(
    "--time-limit",
    type=FiniteRange(0, 10**6),
    default=0.0,
    show_default=True,
    help="Minutes after which this call ends; the same command continues. 0 for none.",
)
@click.option(
    "--prune/--no-prune",
    default=False,
    show_default=True,
    help="End trials early that fall behind the median of others.",
)
def sweep_command(
    out: str, vary: tuple[str, ...], trials: int, time_limit: float, prune: bool, **training: Any
) -> None:
    """Search for settings of the training, judged by validation images; repeating the command resumes.

    All other options are those of train, and are the same for every trial. The search is Optuna's (TPE). A trial counts
    by the validation recall of the epoch that --selection keeps; test scores are neither read nor shown.

    \b
      fastccsa sweep --manifest manifest.csv --out sweeps/ccsa --trials 20 --epochs 10 \\
        --vary lr=1e-5..1e-3:log --vary alpha=0.1..0.9 --vary recipe=balanced,authors
    """  # noqa: D301  (\b tells click to keep the lines)
    from fastccsa.sweep import SweepConfig, parse_setting, sweep, to_text, write_table

    given = given_options()
    for setting in map(parse_setting, vary):
        if setting.name in given:
            raise click.UsageError(f"{given[setting.name]} is varied by --vary {setting.name}=...: omit one of them")
    check_used(training)
    known = {name: value for name, value in training.items() if value is not None}
    config = SweepConfig(out, vary, known, trials, time_limit, prune)
    found = sweep(config)
    table = write_table(Path(out), found)
    click.echo(to_text(found), nl=False)
    finished = [trial for trial in found if trial.state == "finished"]
    if not finished:
        click.echo(f"No trial is finished; the table is in {table}.")
        return
    best = finished[0]
    click.echo(
        f"The best of {len(found)} trials is {best.folder}. The best is also the luckiest: train its settings with "
        "other seeds, and judge them by test images once:"
    )
    click.echo(command_of(config.run(best.values, Path(out) / "best")))


# The options of train, but for those that a sweep has itself.
sweep_command.params += [parameter for parameter in train_command.params if parameter.name not in _OWN]
