"""The experiments' recalls by domain over their seeds, compared with the paper's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fastccsa.collections.taxonomy import TABLE1
from fastccsa.experiments.rows import AVERAGE, EXPERIMENTS
from fastccsa.reporting.groups import Estimate, RunGroup, estimate
from fastccsa.reporting.recall_intervals import recall_intervals
from fastccsa.runs.records import RunFolder


@dataclass(frozen=True)
class ScoreCell:
    """A recall over the seeds.

    Attributes:
        here: the recall, in [0, 1]; None if there are no test images of the domain.
        paper: the paper's number in %; None if the two are not comparable.
        is_left_out: whether the domain was excluded from training and selection.
        is_best: whether the recall is the highest of its column.
    """

    here: Estimate | None
    paper: float | None
    is_left_out: bool
    is_best: bool

    @property
    def difference(self) -> float | None:
        """The difference from the paper's number, in percentage points."""
        return None if self.here is None or self.paper is None else 100 * self.here.mean - self.paper


@dataclass(frozen=True)
class ScoreRow:
    """A group of runs: its settings (n_sec, backbone, cls, align), and a cell for each domain and avg."""

    group: RunGroup
    settings: tuple[str, ...]
    cells: tuple[ScoreCell, ...]


def score_rows(groups: Sequence[RunGroup], domains: Sequence[str]) -> list[ScoreRow]:
    """Return one row per group, with a cell for each of ``domains`` and the average."""
    intervals = [recall_intervals(group) for group in groups]
    columns = [[_recall(group, domain) for group in groups] for domain in domains]
    columns.append([estimate(run.scores.average for run in group.runs) for group in groups])
    for name, column in zip((*domains, AVERAGE), columns, strict=True):
        column[:] = [
            here and replace(here, interval=found.get(name)) for here, found in zip(column, intervals, strict=True)
        ]
    names = (*domains, AVERAGE)
    rows = []
    for number, group in enumerate(groups):
        cells = []
        for name, column in zip(names, columns, strict=True):
            here = column[number]
            left_out = name in group.runs[0].config.exclude
            cells.append(ScoreCell(here, _paper(group, name), left_out, _is_best(here, column)))
        rows.append(ScoreRow(group, _settings(group), tuple(cells)))
    return rows


def missing_runs(folder: RunFolder, groups: Sequence[RunGroup]) -> list[str]:
    """Describe which experiments and seeds are missing, in sentences."""
    found = {group.name: set(group.seeds) for group in groups if group.is_experiment}
    sentences = []
    absent = [letter for letter in EXPERIMENTS if letter not in found]
    if found and absent:
        sentences.append(f"Experiments of the paper that are not here: {', '.join(absent)}.")
    every = sorted(set().union(*found.values())) if found else []
    lacking = [
        f"{letter} {', '.join(str(seed) for seed in every if seed not in seeds)}"
        for letter, seeds in found.items()
        if set(every) - seeds
    ]
    if lacking:
        sentences.append(f"Seeds that other experiments have: {'; '.join(lacking)}.")
    if folder.unfinished:
        sentences.append(f"Not finished: {', '.join(folder.unfinished)}.")
    return sentences


def _recall(group: RunGroup, domain: str) -> Estimate | None:
    scores = (run.scores.domains.get(domain) for run in group.runs)
    return estimate(score.macro_recall for score in scores if score is not None)


def _paper(group: RunGroup, name: str) -> float | None:
    """Return the paper's number; its average is taken over the run's domains, so that the two are comparable."""
    if not group.is_experiment:
        return None
    paper, here = EXPERIMENTS[group.name].paper, group.runs[0].scores.domains
    if name != AVERAGE or set(here) == set(TABLE1):
        return paper.get(name)
    return sum(paper[domain] for domain in here) / len(here) if here.keys() <= paper.keys() else None


def _is_best(here: Estimate | None, column: Sequence[Estimate | None]) -> bool:
    known = [other.mean for other in column if other is not None]
    return here is not None and len(column) > 1 and here.mean == max(known)


def _settings(group: RunGroup) -> tuple[str, ...]:
    config = group.runs[0].config
    n_sec = "a" if config.n_sec == "all" else str(config.n_sec)
    return n_sec, config.backbone.replace("resnet", "RN"), config.classification_weight, config.alignment
