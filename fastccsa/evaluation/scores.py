"""Scores by domain, computed from predictions, and their JSON format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from sklearn.metrics import confusion_matrix

from fastccsa.system.errors import InputError
from fastccsa.system.reading import load_json, read_text
from fastccsa.system.schema import Count, Filled, Ordinal, Share, build

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class DomainScores:
    """Scores on one domain's images.

    Attributes:
        count: number of images.
        macro_recall: mean recall over the classes present among these images, in [0, 1].
        recall: recall by class, in the order of the classes; None for a class without images here.
        confusion: counts, with one row per true class and one column per predicted class.
    """

    count: Count
    macro_recall: Share
    recall: tuple[Share | None, ...]
    confusion: tuple[tuple[Count, ...], ...]


@dataclass(frozen=True)
class Candidate:
    """An epoch (from 1) that could be selected, and its validation recall, averaged over the domains, in [0, 1]."""

    epoch: Ordinal
    recall: Share


@dataclass(frozen=True)
class Selection:
    """How the model was selected among a run's epochs.

    Attributes:
        rule: the rule in words.
        epoch, recall: the selected epoch (from 1), and its validation recall as the rule averages it over the domains.
        choices: what each rule would have selected, by its name, with the recall as that rule averages it; empty in
            scores of older versions.
        last: the last epoch, with its recall as the run's rule averages it; None in scores of older versions.
    """

    rule: str
    epoch: Ordinal
    recall: Share
    choices: Mapping[Any, Candidate] = field(default_factory=dict)
    last: Candidate | None = None


@dataclass(frozen=True)
class Scores:
    """Scores of one model on one split, by domain."""

    split: str
    classes: Annotated[tuple[str, ...], Filled()]
    domains: Annotated[dict[str, DomainScores], Filled()]
    selection: Selection | None = None

    @property
    def average(self) -> float:
        """``avg`` of the paper's table: the mean of the domains' macro-average recalls, in [0, 1]."""
        return float(np.mean([domain.macro_recall for domain in self.domains.values()]))

    def table(self) -> DataFrame:
        """Return a table with one row per domain and ``avg``; recalls in percent, NaN for a class without images."""
        from pandas import DataFrame

        rows: dict[str, dict[str, Any]] = {}
        for name, domain in self.domains.items():
            by_class = [np.nan if recall is None else 100 * recall for recall in domain.recall]
            rows[name] = {
                "images": domain.count,
                "recall": 100 * domain.macro_recall,
                **dict(zip(self.classes, by_class, strict=True)),
            }
        total = sum(domain.count for domain in self.domains.values())
        rows["avg"] = {"images": total, "recall": 100 * self.average}
        return DataFrame.from_dict(rows, orient="index").astype({"images": int})

    def __str__(self) -> str:
        """Return the table as text, recalls in percent."""
        return str(self.table().to_string(float_format="{:.1f}".format, na_rep="-"))

    def to_json(self) -> str:
        """Return one JSON object; a class without images has recall null, and `from_json` ignores ``average``."""
        return json.dumps({"average": self.average, **asdict(self)}, indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Scores:
        """Read what `to_json` returned.

        Raises:
            InputError: the text does not describe scores.
        """
        try:
            scores = build(Scores, _with_defaults(load_json(text)), ignore=("average",))
        except InputError as error:
            raise InputError(f"not valid scores: {error}") from error
        _check(scores)
        return scores

    @staticmethod
    def read(path: str | Path) -> Scores:
        """Read scores from a JSON file.

        Raises:
            InputError: the file is missing or invalid.
        """
        try:
            return Scores.from_json(read_text(path))
        except OSError as error:
            raise InputError(f"no scores at {path}: {error.strerror}") from error
        except InputError as error:
            raise InputError(f"{path}: {error}; remove it and repeat the command that wrote it") from error


def _with_defaults(values: Any) -> Any:
    """Fill in what scores of older versions do not have."""
    return {"selection": None, **values} if isinstance(values, dict) else values


def _check(scores: Scores) -> None:
    """Check that the lengths of the parts of scores that were read match.

    Raises:
        InputError: they do not.
    """
    classes = len(scores.classes)
    for name, domain in scores.domains.items():
        square = len(domain.confusion) == classes and all(len(row) == classes for row in domain.confusion)
        if len(domain.recall) != classes or not square:
            raise InputError(f"not valid scores: domain {name} does not have a recall for each of {classes} classes")


def score(
    targets: np.ndarray,
    predictions: np.ndarray,
    domain_indices: np.ndarray,
    classes: Sequence[str],
    domains: Sequence[str],
    split: str = "test",
) -> Scores:
    """Score int64 arrays [n] of true classes, predicted classes and domains.

    Domains without images among the n are omitted.

    Raises:
        InputError: n is 0.
    """
    if len(targets) == 0:
        raise InputError(f"there is no image to score in split {split!r}")
    found = {}
    for index, name in enumerate(domains):
        here = domain_indices == index
        if here.any():
            found[name] = _score_domain(targets[here], predictions[here], len(classes))
    return Scores(split, tuple(classes), found)


def _score_domain(targets: np.ndarray, predictions: np.ndarray, num_classes: int) -> DomainScores:
    # One call of scikit-learn, which takes milliseconds: a GPU waits for this between two epochs.
    confusion = confusion_matrix(targets, predictions, labels=np.arange(num_classes))
    counts = confusion.sum(axis=1)
    present = counts > 0
    recalls = confusion.diagonal()[present] / counts[present]
    by_class: list[float | None] = [None] * num_classes
    for index, recall in zip(present.nonzero()[0], recalls, strict=True):
        by_class[index] = float(recall)
    return DomainScores(
        count=len(targets),
        macro_recall=float(np.mean(recalls)),
        recall=tuple(by_class),
        confusion=tuple(map(tuple, confusion.tolist())),
    )
