"""How well a model does, by domain and subgroup, with intervals: the part of a model card made from test outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fastccsa.cards.facts import Facts
from fastccsa.evaluation import Outputs
from fastccsa.evaluation.intervals import Interval
from fastccsa.evaluation.metrics import METRICS, Metric, usual_positive
from fastccsa.evaluation.samples import Samples
from fastccsa.evaluation.tuning import Tuning
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.tested_images import UNKNOWN, Clusters, ImageRows, Subgroups, read_tuning
from fastccsa.system.errors import InputError

REPLICATES = 2000  # percentiles vary by about a twentieth of the interval's length
IN_SUBGROUPS = ("recall", "auroc", "auroc_positive", "calibration_error")
# Columns that every manifest has, and those that name a person or a lesion.
_NO_SUBGROUPS = ("image", "label", "domain", "group", "split", "patient", "lesion")
OVER_ALL = "mean over the domains"


def performance_facts(
    config: TrainConfig, folder: Path, outputs: Outputs, images: ImageRows, trained: Sequence[str]
) -> Facts:
    """Return scores with 95 % intervals by domain and by subgroup, and what was chosen on validation images.

    Args:
        config: the run.
        folder: its folder, with the outputs on validation images if there are any.
        outputs: the model's outputs on the test images.
        images: the manifest's rows of these.
        trained: the domains that the model was trained on.
    """
    positive = usual_positive(outputs.classes)
    tuning = read_tuning(folder, config, positive)
    clusters = Clusters.of(images)
    tested = np.unique(outputs.domains).tolist()
    names = outputs.domain_names
    samples = Samples(
        [outputs],
        list(METRICS.values()),
        positive=positive,
        tunings=[tuning],
        clusters=clusters.of_image,
        trained=[[number for number, name in enumerate(names) if name in trained]],
        replicates=REPLICATES,
    )
    groups = {names[domain]: [domain] for domain in tested}
    return {
        "split": outputs.split,
        "images": len(outputs),
        "intervals": f"{REPLICATES} bootstrap samples of {samples.clusters} {clusters.remark}",
        "positive": positive,
        "roles": {name: _role(config, trained, name) for name in groups},
        "test_images": {name: int((outputs.domains == domain).sum()) for name, (domain,) in groups.items()},
        "test_images_by_class": {
            name: _by_class(outputs, outputs.domains == domain) for name, (domain,) in groups.items()
        },
        "scores": {name: _scores(samples, METRICS.values(), group) for name, group in groups.items()}
        | {OVER_ALL: _scores(samples, METRICS.values(), tested)},
        "titles": {key: metric.name(positive) for key, metric in METRICS.items()},
        "tuned_on_validation": None if tuning is None else asdict(tuning),
        "subgroups": _subgroups(outputs, images, clusters, tuning, positive, folder),
    }


def _role(config: TrainConfig, trained: Sequence[str], domain: str) -> str:
    if domain in config.exclude:
        return "left out of training and selection"
    return "training domain" if domain in trained else "not trained on"


def _by_class(outputs: Outputs, here: np.ndarray) -> dict[str, int]:
    counts = np.bincount(outputs.targets[here], minlength=len(outputs.classes))
    return {name: int(count) for name, count in zip(outputs.classes, counts, strict=True)}


def _scores(samples: Samples, metrics: Iterable[Metric], group: Sequence[int]) -> Facts:
    """Return estimate and interval of each metric over a group of parts; metrics that are not defined are left out."""
    found: dict[str, Any] = {}
    for metric in metrics:
        interval = samples.interval(metric.key, [0], [group])
        if interval is not None:
            found[metric.key] = _numbers(interval)
    return found


def _numbers(interval: Interval) -> list[float | None]:
    values = (interval.estimate, interval.low, interval.high)
    return [round(value, 6) if np.isfinite(value) else None for value in values]


def _subgroups(
    outputs: Outputs, images: ImageRows, clusters: Clusters, tuning: Tuning | None, positive: str | None, folder: Path
) -> Facts:
    """Return the scores of the values of every column of the manifest that forms subgroups, by column."""
    if images.table is None:
        return {}
    found: Facts = {}
    for column in images.table:
        if column in _NO_SUBGROUPS:
            continue
        try:
            subgroups = Subgroups.of(images, column, folder)
        except InputError:
            found[column] = {"problem": "too many values for a table"}
            continue
        if len({*subgroups.names} - {UNKNOWN}) < 2:
            continue  # all images have the same value, or none is known
        found[column] = _of_column(outputs, subgroups, clusters, tuning, positive)
    return found


def _of_column(
    outputs: Outputs, subgroups: Subgroups, clusters: Clusters, tuning: Tuning | None, positive: str | None
) -> Facts:
    metrics = [METRICS[key] for key in IN_SUBGROUPS]
    samples = Samples(
        [outputs],
        metrics,
        positive=positive,
        tunings=[tuning],
        clusters=clusters.of_image,
        parts=subgroups.of_image,
        replicates=REPLICATES,
    )
    counts = np.bincount(subgroups.of_image, minlength=len(subgroups.names)).tolist()
    parts = {name: _scores(samples, metrics, [number]) for number, name in enumerate(subgroups.names)}
    return {
        "images": dict(zip(subgroups.names, counts, strict=True)),
        "scores": parts,
        "gap": {metric.key: _gap(samples, metric.key, parts, subgroups.names) for metric in metrics},
    }


def _gap(samples: Samples, metric: str, parts: Facts, names: Sequence[str]) -> list[float | None] | None:
    """Return the highest minus the lowest value of the subgroups."""
    known = sorted((scores[metric][0], number) for number, scores in enumerate(parts.values()) if metric in scores)
    if len(known) < 2:
        return None
    interval = samples.interval(metric, [0], [[known[-1][1]]], [0], [[known[0][1]]])
    return None if interval is None else _numbers(interval)
