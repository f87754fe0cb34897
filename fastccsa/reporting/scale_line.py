"""Differences between the runs of a table and the paper's, in one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from fastccsa.experiments.rows import EXPERIMENTS
from fastccsa.experiments.scale import Scale, train_config
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.records import Run
from fastccsa.sampling import RECIPES

# Fields that are not part of the method: they distinguish runs of one row, or only change how images are read.
_IGNORED = ("seed", "init", "manifest_sha256", "primary", "cache", "image_backend", "weights", "lr_step")


_OF_PAIRS = {item.name for item in fields(TrainConfig) if item.metadata.get("of_pairs")}


def scale_lines(runs: Sequence[Run]) -> list[str]:
    """Describe how the experiments among ``runs`` differ from the paper's, separately for baselines and CCSA."""
    rows = [(run, run.arm) for run in runs if run.arm in EXPERIMENTS]
    kinds = {
        "baselines": [row for row in rows if row[0].config.is_baseline],
        "CCSA": [row for row in rows if not row[0].config.is_baseline],
    }
    lines = []
    for kind, members in kinds.items():
        if members:
            differences = "; ".join(_differences(members)) or "as in the paper"
            lines.append(f"Scale of {kind} (the paper's in brackets): {differences}.")
    return lines


def _differences(rows: Sequence[tuple[Run, str]]) -> Iterator[str]:
    pairs = [(run.config, _paper(letter)) for run, letter in rows]
    for name in (item.name for item in fields(TrainConfig) if item.metadata.get("changes_result", True)):
        if name in _IGNORED:
            continue
        found = [(getattr(config, name), getattr(paper, name)) for config, paper in pairs if _counts(config, name)]
        different = [(value, paper) for value, paper in found if value != paper]
        if different:
            yield f"{name} {_values(value for value, _ in found)} ({_values(paper for _, paper in different)})"
    starts = {_first_weights(run) for run, _ in rows if run.config.init is None} - {"imagenet"}
    if starts:
        yield f"first weights {_values(sorted(starts))} (imagenet)"


def _counts(config: TrainConfig, name: str) -> bool:
    """Whether a field says something about a run: not if it does not concern baselines, or follows from the recipe."""
    if config.is_baseline and name in _OF_PAIRS:
        return False
    return getattr(config, name) != getattr(RECIPES[config.recipe], name, None)


def _paper(letter: str) -> TrainConfig:
    row = EXPERIMENTS[letter]
    settings = {"recipe": "paper", "selection": "paper"}
    return train_config(row if row.threshold is None else EXPERIMENTS["K"], Scale(), settings)


def _first_weights(run: Run) -> str:
    recorded = (run.environment or {}).get("first_weights", run.config.weights)
    return "random" if recorded == "none" else str(recorded)


def _values(values: Any) -> str:
    texts = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    return ", ".join(dict.fromkeys(texts))
