"""The features before and after a run, and their distances between domains."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from fastccsa.evaluation import Outputs
from fastccsa.evaluation.distances import PairDistances, balanced_part, cross_domain_distances
from fastccsa.reporting.groups import RunGroup, read_outputs, start_of
from fastccsa.reporting.plots import histograms
from fastccsa.reporting.projection import FEWEST, project
from fastccsa.reporting.scatter import scatter
from fastccsa.runs.records import Run
from fastccsa.runs.sampling_record import SamplingRecord

PER_GROUP = 30  # images used per domain and class
BINS = 48


@dataclass(frozen=True)
class DistanceChart:
    """Distances across domains, as histograms and as numbers.

    Attributes:
        title: "Before" or "After".
        svg: the chart.
        same, different: median distance of the pairs of the same class and of different classes; None without such
            pairs.
        within: share of the pairs of different classes that are closer than the margin; None without such pairs.
        pairs: number of pairs of the same class and of different classes.
    """

    title: str
    svg: Markup
    same: float | None
    different: float | None
    within: float | None
    pairs: tuple[int, int]


@dataclass(frozen=True)
class Features:
    """An experiment's features.

    Attributes:
        seed: seed of the run that is shown.
        images: number of images used.
        scatters: title, drawing, and its groups with the numbers of their colours.
        distances: charts before (if known) and after the run.
        margin: the margin of the run, in units of the features.
        note: what is missing, if anything.
    """

    seed: int
    images: int
    scatters: tuple[tuple[str, Markup, Mapping[str, int]], ...]
    distances: tuple[DistanceChart, ...]
    margin: float
    note: str


def features_of(group: RunGroup, runs_folder: Path, colours: Mapping[str, int], cache: Path | None) -> Features | None:
    """Return the features of ``group`` for the page; None if its runs have none.

    Args:
        group: the runs.
        runs_folder: where to look for the run that it started from.
        colours: numbers of the domains' colours.
        cache: folder that caches the projections, or None.

    Raises:
        InputError: a file of outputs is broken.
    """
    run = group.shown
    outputs = read_outputs(run)
    if outputs is None:
        return None
    before, note = start_of(run, runs_folder)
    moments = {"after": balanced_part(outputs, PER_GROUP)}
    if before is not None:
        moments = {"before": balanced_part(before, PER_GROUP), **moments}
    if run.config.normalize_features:
        moments = {moment: _normalised(outputs) for moment, outputs in moments.items()}
    after, margin = moments["after"], _margin(run)
    return Features(
        seed=run.config.seed,
        images=len(after),
        scatters=tuple(_scatters(group.name, moments, colours, cache)),
        distances=tuple(_distance_charts(group.name, moments, margin)),
        margin=margin,
        note=note,
    )


def _normalised(outputs: Outputs) -> Outputs:
    """Divide the features by their norms, as the loss did."""
    norms = np.linalg.norm(outputs.features, axis=1, keepdims=True)
    return replace(outputs, features=outputs.features / np.maximum(norms, np.finfo(np.float32).tiny))


def _margin(run: Run) -> float:
    """Return the margin that the run was trained with, in units of the features."""
    record = SamplingRecord.read(run.folder)
    return run.config.balance.margin if record is None or record.margin is None else record.margin


def _scatters(
    name: str, moments: Mapping[str, Outputs], colours: Mapping[str, int], cache: Path | None
) -> Iterator[tuple[str, Markup, Mapping[str, int]]]:
    """Yield the features of each moment twice, coloured by class and by domain; none if there are too few images."""
    for moment, outputs in moments.items():
        if len(outputs) < FEWEST:
            return
        points = project(outputs.features, cache)
        classes = {outputs.classes[number]: int(number) for number in np.unique(outputs.targets)}
        present = {outputs.domain_names[number] for number in np.unique(outputs.domains)}
        domains = {domain: colour for domain, colour in colours.items() if domain in present}
        by_domain = np.array([colours.get(domain, 0) for domain in outputs.domain_names])[outputs.domains]
        for what, groups, legend in (("class", outputs.targets, classes), ("domain", by_domain, domains)):
            label = f"Features {moment} {name}, coloured by {what}: t-SNE of {len(outputs)} test images"
            yield f"{moment.capitalize()}, by {what}", Markup(scatter(label, points, groups)), legend


def _distance_charts(name: str, moments: Mapping[str, Outputs], margin: float) -> Iterator[DistanceChart]:
    found = {moment: cross_domain_distances(outputs) for moment, outputs in moments.items()}
    every = np.concatenate([values for pairs in found.values() for values in (pairs.same, pairs.different)])
    if not len(every):
        return  # a single domain
    # One axis for both moments that includes the margin; the few largest distances may be outside.
    edges = np.linspace(0, max(1.1 * margin, float(np.quantile(every, 0.995))), BINS + 1)
    for moment, pairs in found.items():
        yield _distance_chart(name, moment, pairs, edges, margin)


def _distance_chart(
    name: str, moment: str, pairs: PairDistances, edges: npt.NDArray[np.float64], margin: float
) -> DistanceChart:
    by_kind = {"same class": pairs.same, "different classes": pairs.different}
    shares = {kind: np.histogram(values, edges)[0] / max(len(values), 1) for kind, values in by_kind.items()}
    label = f"Distances between the features of two domains {moment} {name}, and the margin, {margin:g}"
    return DistanceChart(
        title=moment.capitalize(),
        svg=Markup(histograms(label, edges, shares, margin)),
        same=_median(pairs.same),
        different=_median(pairs.different),
        within=float(np.mean(pairs.different < margin)) if len(pairs.different) else None,
        pairs=(len(pairs.same), len(pairs.different)),
    )


def _median(values: npt.NDArray[np.float64]) -> float | None:
    return float(np.median(values)) if len(values) else None
