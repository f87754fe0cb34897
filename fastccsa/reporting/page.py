"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fastccsa import __version__
from fastccsa.data.taxonomy import CLASS_NAMES, DOMAINS
from fastccsa.evaluation.scores import DomainScores
from fastccsa.reporting.plots import SERIES_COLOURS, Series, curves
from fastccsa.reporting.runs import Run, RunFolder
from fastccsa.reporting.table import SETTINGS_KEY, ScoreTable, domain_order, to_markdown

# Terms of the loss in metrics.jsonl, as the page names them.
TERMS = {
    "loss": "Loss",
    "classification1": "Classification, first images",
    "classification2": "Classification, second images",
    "alignment": "Alignment (same class)",
    "separation": "Separation (different classes)",
}


@dataclass(frozen=True)
class Matrix:
    """A run's confusion matrix on one domain.

    ``rows``: class, counts by predicted class, number of images, recall; for classes with images only.
    """

    run: str
    is_left_out: bool
    scores: DomainScores
    rows: tuple[tuple[str, tuple[int, ...], int, float], ...]


@dataclass(frozen=True)
class Chart:
    """A titled curve."""

    title: str
    svg: Markup


def render_page(folder: RunFolder, table: ScoreTable) -> str:
    """The page of ``folder`` as HTML text."""
    environment = Environment(
        loader=PackageLoader("fastccsa.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = folder.runs
    domains = domain_order(runs)
    colours = {domain: number for number, domain in enumerate(domains)}
    classes = list(dict.fromkeys(name for run in runs for name in run.scores.classes))
    return environment.get_template("report.html").render(
        folder=folder,
        table=table,
        settings_key=SETTINGS_KEY,
        markdown=to_markdown(table),
        domain_names={domain: DOMAINS.get(domain, domain) for domain in domains},
        class_names={name: CLASS_NAMES[name] for name in classes if name in CLASS_NAMES},
        matrices={domain: list(_matrices(runs, domain)) for domain in domains},
        classes_of={run.name: run.scores.classes for run in runs},
        colours=colours,
        series_colours=SERIES_COLOURS,
        training={run.name: list(_training_charts(run)) for run in runs},
        validation={run.name: _validation_chart(run, colours) for run in runs},
        settings={run.name: list(_flatten(asdict(run.config))) for run in runs},
        environments={run.name: list(_flatten(run.environment or {})) for run in runs},
        version=__version__,
    )


def _matrices(runs: tuple[Run, ...], domain: str) -> Iterator[Matrix]:
    for run in runs:
        scores = run.scores.domains.get(domain)
        if scores is None:
            continue
        rows = tuple(
            (name, counts, sum(counts), recall)
            for name, counts, recall in zip(run.scores.classes, scores.confusion, scores.recall, strict=True)
            if recall is not None
        )
        yield Matrix(run.name, domain in run.config.exclude, scores, rows)


def _training_charts(run: Run) -> Iterator[Chart]:
    for term, title in TERMS.items():
        points = [(record["epoch"], record[term]) for record in run.history if term in record]
        if points:
            epochs, values = zip(*points, strict=True)
            yield Chart(title, Markup(curves(f"{title} of {run.name} by epoch", [Series(term, epochs, values)])))


def _validation_chart(run: Run, colours: Mapping[str, int]) -> tuple[Chart, tuple[str, ...]] | None:
    """The chart and the domains in it; None without a history."""
    if not run.history:
        return None
    epochs = [record["epoch"] for record in run.history]
    domains = tuple(domain for domain in colours if domain in run.history[0]["validation"])
    series = [
        Series(domain, epochs, [record["validation"][domain] for record in run.history], colours[domain])
        for domain in domains
    ]
    if len(domains) > 1:
        series.append(Series("mean", epochs, [record["validation_recall"] for record in run.history], None))
    selected = run.scores.selection.epoch if run.scores.selection else None
    title = "Validation recall, %"
    svg = curves(f"{title}, of {run.name} by epoch", series, mark=selected, percent=True)
    return Chart(title, Markup(svg)), domains


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of a nested mapping, as ``outer.inner``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)
