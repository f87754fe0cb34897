"""``fastccsa compare``: metrics of runs side by side, with intervals and tests of their differences."""

from __future__ import annotations

from pathlib import Path

import click

from fastccsa.cli.options import choice
from fastccsa.reporting import ComparisonFormat

DEFAULT_METRICS = "recall,auroc,auroc_positive,brier,calibration_error"


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--against", multiple=True, help="Run that the others are compared with; repeatable.  [default: the first one]"
)
@click.option("--metrics", default=DEFAULT_METRICS, show_default=True, help="Metrics separated by commas, or all.")
@click.option("--positive", help="Class that is told from the rest.  [default: melanoma, if it is a class]")
@click.option("--by-domain", is_flag=True, help="Also show each domain.")
@click.option("--by", "column", help="Column of the manifest, such as sex or age, whose values form subgroups to show.")
@click.option(
    "--cluster",
    default="group",
    show_default=True,
    help="Column of the manifest whose images are drawn together, such as a lesion or patient; or image.",
)
@click.option(
    "--replicates", type=click.IntRange(100, 1_000_000), default=10_000, show_default=True, help="Bootstrap samples."
)
@click.option("--format", "table_format", type=choice(ComparisonFormat), default="text", show_default=True)
def compare_command(
    runs: tuple[Path, ...],
    against: tuple[str, ...],
    metrics: str,
    positive: str | None,
    by_domain: bool,
    column: str | None,
    cluster: str,
    replicates: int,
    table_format: ComparisonFormat,
) -> None:
    """Compare finished runs: metrics with 95 % intervals, and paired differences with p-values.

    Each of RUNS is a run folder, or a folder with runs seed0, seed1, ... of one way of training, whose seeds are
    paired. All must have been tested on the same images. Intervals cover the test images, drawn by lesion or
    patient, and with at least three seeds also the seeds.
    """
    from fastccsa.evaluation.metrics import METRICS, find_metric, usual_positive
    from fastccsa.reporting import comparison_table
    from fastccsa.reporting.arms import read_each
    from fastccsa.reporting.comparison import Comparison
    from fastccsa.runs.tested_images import Clusters, ImageRows, Subgroups
    from fastccsa.system.errors import InputError

    if column and by_domain:
        raise click.UsageError("give --by or --by-domain: subgroups are formed over all domains")
    names = list(METRICS) if metrics == "all" else [name.strip() for name in metrics.split(",")]
    try:
        chosen = [find_metric(name) for name in names]
    except InputError as error:
        raise InputError(f"--metrics: {error}") from error
    arms = read_each(runs)
    missing = [name for name in against if name not in arms]
    if missing:
        raise InputError(f"--against: {', '.join(missing)} is not among the runs {', '.join(arms)}")
    first = next(iter(next(iter(arms.values())).values()))
    images = ImageRows.read(first.run.config, first.outputs)
    classes = first.outputs.classes
    if positive is not None and positive not in classes:
        raise InputError(f"--positive: {positive!r} is not among the classes {', '.join(classes)}")
    positive = positive or usual_positive(classes)
    comparison = Comparison(
        arms,
        chosen,
        positive=positive,
        clusters=Clusters(None, "images, each drawn by itself") if cluster == "image" else Clusters.of(images, cluster),
        by_domain=by_domain,
        subgroups=Subgroups.of(images, column, first.run.folder) if column else None,
        replicates=replicates,
    )
    tables = comparison_table.compare(comparison, chosen, list(arms), against or list(arms)[:1], positive)
    if not tables:
        raise InputError(f"none of the metrics {', '.join(names)} is defined on these test images")
    if table_format == "text":
        comparison_table.print_text(comparison, tables)
    elif table_format == "csv":
        click.echo(comparison_table.to_csv(tables), nl=False)
    elif table_format == "json":
        click.echo(comparison_table.to_json(comparison, tables), nl=False)
    else:
        click.echo(comparison_table.to_markdown(comparison, tables), nl=False)
