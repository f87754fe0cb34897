"""Intervals of the recalls in the table of runs."""

from __future__ import annotations

import numpy as np

from fastccsa.evaluation.intervals import Interval
from fastccsa.evaluation.metrics import METRICS
from fastccsa.evaluation.samples import Samples
from fastccsa.experiments.rows import AVERAGE
from fastccsa.reporting.groups import RunGroup, read_outputs
from fastccsa.runs.tested_images import Clusters, ImageRows


def recall_intervals(group: RunGroup) -> dict[str, Interval]:
    """Return the interval of the macro-average recall by domain and of their average.

    There is none if a run has no test outputs, or if the runs of the group were tested on different images.
    """
    results = []
    for run in group.runs:
        outputs = read_outputs(run)
        if outputs is None:
            return {}
        results.append(outputs)
    first = results[0]
    for other in results[1:]:
        if not np.array_equal(other.rows, first.rows) or other.domain_names != first.domain_names:
            return {}
    clusters = Clusters.of(ImageRows.read(group.runs[0].config, first)).of_image
    samples = Samples(results, [METRICS["recall"]], clusters=clusters)
    tested = np.unique(first.domains).tolist()
    groups = {first.domain_names[domain]: (domain,) for domain in tested} | {AVERAGE: tuple(tested)}
    numbers = list(range(len(results)))
    found = {name: samples.interval("recall", numbers, [domains] * len(numbers)) for name, domains in groups.items()}
    return {name: interval for name, interval in found.items() if interval is not None}
