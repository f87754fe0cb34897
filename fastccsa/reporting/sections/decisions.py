"""Calibration, abstention, decision curves and familiarity of an experiment's models, at home and on unseen domains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from fastccsa.evaluation.intervals import Interval
from fastccsa.evaluation.metrics import METRICS, Metric, find_metric, usual_positive
from fastccsa.reporting.arms import GROUPS, Result
from fastccsa.reporting.comparison import Comparison
from fastccsa.reporting.groups import RunGroup, read_outputs
from fastccsa.reporting.plots import DecisionCurve, decision_curve

ARM = "model"
REPLICATES = 2000
PERCENTS = (1, 2, 5, 10, 15, 20, 25, 30, 40, 50, 60)  # risks of a curve
SHOWN = (
    "calibration_error", "calibration_error_scaled", "coverage", "set_size", "answered", "accuracy_of_answered",
    "risk_area", "net_gain_5", "net_gain_10", "net_gain_20",
    *(key for key, metric in METRICS.items() if metric.of_unseen),
)  # fmt: skip
# The groups of domains that are shown; the others are means over some of the same domains.
SHOWN_GROUPS = ("home", "abroad", "unseen")


@dataclass(frozen=True)
class DecisionsView:
    """What an experiment's models are worth for decisions.

    Attributes:
        seeds: seeds of the runs.
        groups: the groups of domains, by title.
        groups_text: which domains they have, in sentences.
        rows: name of each metric, and its value with the interval in each group.
        positive: the class that the curves are about; None if there is none.
        curves: title and drawing of each decision curve; empty without a positive class or validation outputs.
        samples: how intervals were made.
    """

    seeds: tuple[int, ...]
    groups: Sequence[str]
    groups_text: str
    rows: Sequence[tuple[str, Sequence[str]]]
    positive: str | None
    curves: Sequence[tuple[str, Markup]]
    samples: str


def decisions_of(group: RunGroup) -> DecisionsView | None:
    """Return the view for the page; None if no run has test outputs.

    Of runs that were tested on different images, only the shown one is used.

    Raises:
        InputError: a file of a run is broken.
    """
    read = [(run, read_outputs(run)) for run in group.runs]
    results = {run.config.seed: Result(run, outputs) for run, outputs in read if outputs is not None}
    if not results:
        return None
    shown = Result(group.shown, results[group.shown.config.seed].outputs)
    if any(not result.same_images(shown) for result in results.values()):
        results = {shown.run.config.seed: shown}
    positive = usual_positive(shown.outputs.classes)
    benefits = [find_metric(f"net_benefit_{percent}") for percent in PERCENTS]
    table = [METRICS[key] for key in SHOWN]
    comparison = Comparison(
        {ARM: results}, list({metric.key: metric for metric in (*table, *benefits)}.values()), positive=positive,
        replicates=REPLICATES,
    )  # fmt: skip
    rows = {metric: comparison.row(metric.key, ARM) for metric in table}
    rows = {metric: cells for metric, cells in rows.items() if any(cells.values())}
    groups = [name for name in SHOWN_GROUPS if any(cells[name] for cells in rows.values())]
    return DecisionsView(
        seeds=tuple(results),
        groups=[GROUPS[name] for name in groups],
        groups_text=comparison.groups_text,
        rows=[
            (metric.name(positive), [_text(cells[name], metric) for name in groups]) for metric, cells in rows.items()
        ],
        positive=positive,
        curves=[
            (GROUPS[name], Markup(drawing))
            for name in SHOWN_GROUPS
            if (drawing := _curve(comparison, benefits, name, group.name, positive)) is not None
        ],
        samples=comparison.remark,
    )


def _text(cell: Interval | None, metric: Metric) -> str:
    """Return a value with its interval; the head of the table says how many seeds it is of."""
    return "-" if cell is None else replace(cell, seeds=0).text(metric.scale, 1 if metric.scale == 100 else 2)


def _curve(
    comparison: Comparison, benefits: Sequence[Metric], group: str, name: str, positive: str | None
) -> str | None:
    """Draw the net benefit over the risk in one group of domains; None if it is not defined there."""
    model = [comparison.row(metric.key, ARM)[group] for metric in benefits]
    always = [comparison.row(metric.beside[0].key, ARM)[group] for metric in benefits]
    known = [cell for cell in model if cell is not None]
    if len(known) < len(benefits):
        return None
    return decision_curve(
        f"Decision curve of {name}, {GROUPS[group]}: net benefit of acting on {positive} over the risk",
        DecisionCurve(
            percents=PERCENTS,
            model=[cell.estimate for cell in known],
            low=[cell.low for cell in known],
            high=[cell.high for cell in known],
            always=[cell.estimate for cell in always if cell is not None],
        ),
    )
