"""Curves of the loss's terms and of the validation recall, over the seeds of an experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from fastccsa.evaluation.scores import Candidate
from fastccsa.reporting.groups import RunGroup
from fastccsa.reporting.plots import Series, curves
from fastccsa.runs.records import Run

# Names of the loss terms of metrics.jsonl on the page.
TERMS = {
    "loss": "Loss",
    "classification1": "Classification, first images",
    "classification2": "Classification, second images",
    "alignment": "Alignment (same class)",
    "separation": "Separation (different classes)",
}

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Chart:
    """A titled chart; ``domains`` are the domains of its lines, with the numbers of their colours."""

    title: str
    svg: Markup
    domains: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Selected:
    """The selected epoch of one seed, and the alternatives.

    Attributes:
        seed, epochs: the seed, and the number of epochs.
        chosen: the selected epoch, with its validation recall.
        choices: what each rule would have selected, by its name; empty for runs of older versions.
        last: the last epoch; None for runs of older versions.
        test, last_test: mean test recall over the domains of the selected and the last epoch's model, in [0, 1];
            ``last_test`` is None for runs of older versions.
    """

    seed: int
    epochs: int
    chosen: Candidate
    choices: Mapping[str, Candidate]
    last: Candidate | None
    test: float
    last_test: float | None


@dataclass(frozen=True)
class Training:
    """An experiment's training.

    Attributes:
        charts: one per term of the loss, then the validation recall; empty without a history.
        selections: the selected epoch of each seed that recorded it.
        rule: the rule of the selection; empty if it is unknown.
    """

    charts: tuple[Chart, ...]
    selections: tuple[Selected, ...]
    rule: str

    @property
    def rules(self) -> tuple[str, ...]:
        """Names of the rules whose choices were recorded."""
        return tuple(dict.fromkeys(rule for seed in self.selections for rule in seed.choices))


def training_of(group: RunGroup, colours: Mapping[str, int]) -> Training:
    """Return the curves of ``group``; ``colours`` are the numbers of the domains' colours."""
    selections = [selected for run in group.runs if (selected := _selected(run))]
    rules = [run.scores.selection.rule for run in group.runs if run.scores.selection]
    return Training(tuple(_charts(group, colours)), tuple(selections), rules[0] if rules else "")


def _selected(run: Run) -> Selected | None:
    found = run.scores.selection
    if found is None:
        return None
    return Selected(
        seed=run.config.seed,
        epochs=len(run.history) or run.config.epochs,
        chosen=Candidate(found.epoch, found.recall),
        choices=found.choices,
        last=found.last,
        test=run.scores.average,
        last_test=run.last.average if run.last else None,
    )


def _charts(group: RunGroup, colours: Mapping[str, int]) -> list[Chart]:
    charts = []
    for term, title in TERMS.items():
        line = _over_seeds(group, term, partial(_term, term))
        if line is not None:
            charts.append(Chart(title, Markup(curves(f"{title} of {group.name} by epoch", [line]))))
    validated = {domain for run in group.runs for record in run.history for domain in record["validation"]}
    if validated:
        shown = {domain: colour for domain, colour in colours.items() if domain in validated}
        charts.append(_validation_chart(group, shown))
    return charts


def _validation_chart(group: RunGroup, colours: Mapping[str, int]) -> Chart:
    lines = [
        _over_seeds(group, domain, partial(_recall, domain), colour, band=False) for domain, colour in colours.items()
    ]
    if len(colours) > 1:
        lines.append(_over_seeds(group, "mean", partial(_criterion, group.shown.config.selection), None))
    title = "Validation recall, %"
    marks = [run.scores.selection.epoch for run in group.runs if run.scores.selection]
    series = [line for line in lines if line is not None]
    svg = curves(f"{title}, of {group.name} by epoch", series, marks=marks, percent=True)
    return Chart(title, Markup(svg), colours)


def _term(name: str, record: Record) -> float | None:
    return record.get(name)


def _criterion(rule: str, record: Record) -> float | None:
    """Return the mean recall by which ``rule`` selects; older versions recorded only the paper's."""
    value: float | None = record.get("selection", {}).get(rule, record["validation_recall"])
    return value


def _recall(domain: str, record: Record) -> float | None:
    recall: float | None = record["validation"].get(domain)
    return recall


def _over_seeds(
    group: RunGroup,
    name: str,
    value: Callable[[Record], float | None],
    colour: int | None = 0,
    band: bool = True,
) -> Series | None:
    """Return the mean over the seeds that have the epoch and, with ``band``, the range of their values."""
    by_epoch: dict[int, list[float]] = {}
    for run in group.runs:
        for record in run.history:
            found = value(record)
            if found is not None:
                by_epoch.setdefault(record["epoch"], []).append(found)
    if not by_epoch:
        return None
    epochs = sorted(by_epoch)
    means = [float(np.mean(by_epoch[epoch])) for epoch in epochs]
    if not band or len(group.runs) == 1:
        return Series(name, epochs, means, colour)
    low, high = ([pick(by_epoch[epoch]) for epoch in epochs] for pick in (min, max))
    return Series(name, epochs, means, colour, low, high)
