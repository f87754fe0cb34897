"""The scale of the runs compared with the paper's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fastccsa.runs.config import BASELINE_EPOCHS, CCSA_EPOCHS, TrainConfig
from fastccsa.runs.records import Run

_PAPER = TrainConfig()
_MOST = 3  # number of different values that are listed


@dataclass(frozen=True)
class Fact:
    """A fact about the runs, with the paper's value if it is known."""

    name: str
    value: str
    paper: str = ""


def facts_of(runs: Sequence[Run]) -> list[Fact]:
    """Return scale, initial weights, selection rule, hardware and time of ``runs``."""
    configs = [run.config for run in runs]
    baselines = [config for config in configs if config.is_baseline]
    aligned = [config for config in configs if not config.is_baseline]
    facts = [
        Fact("Image size", _values(configs, lambda config: config.size, " px"), f"{_PAPER.size} px"),
        Fact("Epochs of baselines", _values(baselines, lambda config: config.epochs), str(BASELINE_EPOCHS)),
        Fact("Epochs of CCSA", _values(aligned, lambda config: config.epochs), str(CCSA_EPOCHS)),
        Fact("Batch", _values(configs, lambda config: config.batch_size), str(_PAPER.batch_size)),
        Fact("Learning rate", _values(configs, lambda config: config.lr), f"{_PAPER.lr:g}"),
        Fact("First weights of baselines", _values(baselines, lambda config: config.weights), "ImageNet"),
        Fact("Seeds", ", ".join(map(str, sorted({config.seed for config in configs})))),
        Fact("Test images", _values(runs, lambda run: sum(domain.count for domain in run.scores.domains.values()))),
        Fact("Model selection", _values([run for run in runs if run.scores.selection], _rule)),
        Fact("Hardware", _values([run for run in runs if run.environment], _hardware)),
        Fact("Training time", _time(runs)),
    ]
    return [fact for fact in facts if fact.value]


def _values(items: Iterable[Any], value: Callable[[Any], Any], unit: str = "") -> str:
    """Return the different values as text, at most the first few."""
    found = [f"{name:g}" if isinstance(name, float) else str(name) for name in dict.fromkeys(map(value, items))]
    if not found:
        return ""
    more = f" and {len(found) - _MOST} others" if len(found) > _MOST else ""
    separator = "; " if any("," in name for name in found) else ", "
    return separator.join(found[:_MOST]) + more + unit


def _rule(run: Run) -> str:
    assert run.scores.selection is not None
    return run.scores.selection.rule


def _hardware(run: Run) -> str:
    assert run.environment is not None
    keys = ("gpu", "processor", "device")
    return next((str(run.environment[key]) for key in keys if run.environment.get(key)), "unknown")


def _time(runs: Sequence[Run]) -> str:
    epochs = [record for run in runs for record in run.history if "seconds" in record]
    if not epochs:
        return ""
    seconds = sum(record["seconds"] for record in epochs)
    speeds = sorted(record["images_per_second"] for record in epochs if "images_per_second" in record)
    hours, minutes = divmod(round(seconds / 60), 60)
    length = f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"
    speed = f", {speeds[len(speeds) // 2]:.0f} images/s in a median epoch" if speeds else ""
    return f"{length} for all runs together, without validation{speed}"
