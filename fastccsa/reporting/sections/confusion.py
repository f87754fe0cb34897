"""Confusion matrices and recall by class, over the seeds of an experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fastccsa.evaluation import Scores
from fastccsa.reporting.groups import Estimate, RunGroup, estimate


@dataclass(frozen=True)
class Matrix:
    """An experiment's confusion matrix on one domain.

    Attributes:
        domain: key of the domain.
        is_left_out: whether the domain was excluded from training.
        images: number of test images.
        recall: macro-average recall.
        rows: class, counts by predicted class (summed over seeds), their sum, and recall, for classes with images.
    """

    domain: str
    is_left_out: bool
    images: int
    recall: Estimate
    rows: tuple[tuple[str, tuple[int, ...], int, Estimate], ...]


def confusion_matrices(group: RunGroup, domains: Sequence[str]) -> Iterator[Matrix]:
    """Yield the matrices of the domains on which ``group`` was scored."""
    for domain in domains:
        scores = [run.scores.domains[domain] for run in group.runs if domain in run.scores.domains]
        recall = estimate(score.macro_recall for score in scores)
        if recall is None:
            continue
        counts = np.sum([score.confusion for score in scores], axis=0)
        rows = []
        for number, name in enumerate(group.runs[0].scores.classes):
            by_seed = estimate(score.recall[number] for score in scores)
            if by_seed is not None:
                row = tuple(int(count) for count in counts[number])
                rows.append((name, row, sum(row), by_seed))
        is_left_out = domain in group.runs[0].config.exclude
        yield Matrix(domain, is_left_out, scores[0].count, recall, tuple(rows))


def class_recalls(group: RunGroup, classes: Sequence[str]) -> list[Estimate | None]:
    """Return the recall of each class over the seeds; for each seed, it is averaged over the domains with the class."""
    return [estimate(_recall(run.scores, name) for run in group.runs) for name in classes]


def _recall(scores: Scores, name: str) -> float | None:
    if name not in scores.classes:
        return None
    number = scores.classes.index(name)
    found = estimate(domain.recall[number] for domain in scores.domains.values())
    return None if found is None else found.mean
