"""``fastccsa experiment``: run rows of the paper's table, by their letters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from fastccsa.cli.options import MOST_RUNS
from fastccsa.experiments.rows import EXPERIMENTS
from fastccsa.experiments.scale import PRESETS, parse_scale, parse_settings
from fastccsa.system.text import printable


class Letters(click.ParamType):
    """Letters of experiments: ``K``, ``A-E`` or ``ADK``."""

    name = "A..V"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the letters that ``value`` stands for."""
        text = str(value).upper()
        first, dash, last = text.partition("-")
        if dash and first in EXPERIMENTS and last in EXPERIMENTS and first <= last:
            return "".join(letter for letter in EXPERIMENTS if first <= letter <= last)
        for letter in text:
            if letter not in EXPERIMENTS:
                self.fail(f"{value!r} is not an experiment: give letters A to V, such as K, A-E or ADK", param, ctx)
        return text


@click.command("experiment")
@click.argument("letters", type=Letters(), nargs=-1)
@click.option("--all", "all_rows", is_flag=True, help="All 22, except those that need a collection that is missing.")
@click.option("--algorithm", "algorithms", help="Named algorithms on all images, beside the letters: coral,mmd.")
@click.option(
    "--leave-one-out",
    metavar="all|DOMAINS",
    help="Run each experiment without one domain after the other instead: all that can be, or those named: UDA,MSK.",
)
@click.option("--nested", is_flag=True, help="With --leave-one-out: also without each pair of domains, for selection.")
@click.option("--manifest", required=True, help="CSV of the images, as `fastccsa prepare` writes it.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of all runs."
)
@click.option(
    "--seeds",
    type=click.IntRange(1, MOST_RUNS),
    default=1,
    show_default=True,
    help="Runs per experiment: seeds 0, 1, ...",
)
@click.option(
    "--scale",
    default="paper",
    show_default=True,
    help=f"{', '.join(PRESETS)}, or key=value,... with size, epochs, baseline_epochs, fraction, batch_size, lr, "
    "baseline_lr, weights, cache, prune_images; or both, as in small,size=48.",
)
@click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Any setting of a run; repeatable.")
@click.option("--jobs", type=click.IntRange(1, MOST_RUNS), default=1, show_default=True, help="Runs at a time.")
@click.option("--device", default="auto", show_default=True, help="auto (all GPUs in turn), cpu, cuda or cuda:N.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, and exit.")
def experiment_command(
    letters: tuple[str, ...],
    all_rows: bool,
    algorithms: str | None,
    leave_one_out: str | None,
    nested: bool,
    manifest: str,
    out: Path,
    seeds: int,
    scale: str,
    settings: tuple[str, ...],
    jobs: int,
    device: str,
    dry_run: bool,
) -> None:
    """Run experiments of the paper's Table 2 by their letters, and those that they start from.

    Named algorithms run in the same harness, and with --leave-one-out all of them are scored on domains that they have
    never seen, under three rules of selection.

    Each run has the folder OUT/<letter>/seed<k>. Finished runs are not repeated, and interrupted ones are resumed.
    Several of these commands may share OUT. `fastccsa report OUT` prints the table with the paper's numbers.

    \b
      fastccsa experiment K --manifest manifest.csv --out runs --seeds 5
      fastccsa experiment --all --manifest manifest.csv --out runs --scale small --jobs 2
      fastccsa experiment EK --algorithm coral,ermpp --leave-one-out all --manifest manifest.csv --out left_out
    """  # noqa: D301  (\b tells click to keep the lines)
    selected = "".join(letters)
    if bool(selected or algorithms) == all_rows:
        raise click.UsageError(
            "name experiments by their letters, or all of them with --all, or algorithms with --algorithm"
        )
    if all_rows and leave_one_out:
        raise click.UsageError("--leave-one-out takes experiments by their letters, or --algorithm, not --all")
    if nested and not leave_one_out:
        raise click.UsageError("--nested has no effect without --leave-one-out: omit it")
    from fastccsa.collections import Manifest
    from fastccsa.experiments.describe import describe_plan
    from fastccsa.experiments.leave_one_out import algorithm_rows, leave_out, with_paper
    from fastccsa.experiments.plan import make_plan
    from fastccsa.experiments.scheduler import execute, make_slots
    from fastccsa.experiments.selection_rules import describe_scores, scores_on_left_out, write_scores

    changes = parse_settings(settings)
    slots = make_slots(jobs, device)
    shared = parse_scale(scale)
    rows = [*(EXPERIMENTS[letter] for letter in selected), *algorithm_rows(_names(algorithms))]
    if leave_one_out:
        domains = None if leave_one_out == "all" else _names(leave_one_out)
        images = Manifest.read(manifest, check_files=False)
        found = leave_out(rows, domains, images, shared, changes, nested)
        rows = list(found.rows)
        for name, why in found.skipped.items():
            click.echo(printable(f"{name} is not left out: {why}"))
    plan = make_plan(
        [row.letter for row in rows] or EXPERIMENTS,
        range(seeds),
        manifest,
        out,
        scale=shared,
        settings=changes,
        skip=all_rows,
        rows=with_paper(rows),
    )
    click.echo(printable(describe_plan(plan), lines=True))
    if plan.problems:
        for problem in plan.problems:
            click.echo(f"fastccsa: error: {printable(problem)}", err=True)
        sys.exit(2)
    if dry_run:
        return
    outcomes = execute(plan.runs, slots)
    failed = {run: outcome for run, outcome in outcomes.items() if outcome.status == "failed"}
    for run, outcome in failed.items():
        click.echo(f"fastccsa: {run.name}: {printable(outcome.message)}", err=True)
    if any(run.is_finished for run in plan.runs):
        from fastccsa.reporting import print_text, read_runs, score_table

        click.echo()
        print_text(score_table(read_runs(out)))
    if leave_one_out and (scores := scores_on_left_out(plan.runs)):
        write_scores(scores, out)
        click.echo(f"\n{printable(describe_scores(scores), lines=True)}")
    if failed:
        sys.exit(1)


def _names(text: str | None) -> list[str]:
    """Return the words that are separated by commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]
