"""The table of an experiment's arms: recalls by group of domains, paired differences, and facts about the training."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastccsa.evaluation.distances import balanced_part, cross_domain_distances
from fastccsa.evaluation.intervals import Interval
from fastccsa.evaluation.metrics import METRICS
from fastccsa.reporting.arms import GROUPS, Result, read_arms
from fastccsa.reporting.comparison import Comparison
from fastccsa.runs.folder import training_speed
from fastccsa.system import machine
from fastccsa.system.files import write_atomically

REPORT_FILE = "arms.json"
PER_CELL = 30  # images of a domain and class whose distances are measured


def compare_arms(folder: Path, against: Sequence[str], about: Mapping[str, str]) -> dict[str, Any]:
    """Compare the recall of the arms in a folder.

    Args:
        folder: folder of the runs.
        against: arms that every later arm is compared with.
        about: descriptions of known arms, which come first in the tables; others are described by their settings.

    Returns:
        ``scores``: recall of each arm in each group; ``differences``: those between two arms with the same seeds; both
        as ``[estimate, low, high, seeds]`` in %. ``arms``: distances, share of the alignment in the loss, selected
        epochs and minutes of training of each arm. ``domains``: those of each group, by seed, and ``groups`` says
        it in words. ``samples``: how the test images were sampled.

    Raises:
        InputError: the runs cannot be read or compared.
    """
    arms = read_arms(folder, about)
    some = next(iter(next(iter(arms.values())).values()))
    comparison = Comparison(arms, [METRICS["recall"]])

    def row(arm: str, minus: str | None = None) -> dict[str, Any]:
        return {group: cell and _as_row(cell) for group, cell in comparison.row("recall", arm, minus).items()}

    order = list(arms)
    pairs = [(arm, other) for other in against if other in arms for arm in order[order.index(other) + 1 :]]
    return {
        "commit": machine.commit(),
        "test_images": len(some.outputs),
        "samples": comparison.remark,
        "groups": comparison.groups_text,
        "domains": comparison.groups_by_seed,
        "scores": [{"arm": arm, **row(arm)} for arm in arms],
        "differences": [{"arm": arm, "minus": other, **row(arm, other)} for arm, other in pairs],
        "arms": [
            {
                "arm": arm,
                "about": about.get(arm) or _differences_from(arms.get("K") or arms.get("S"), by_seed),
                **_facts(by_seed),
            }
            for arm, by_seed in arms.items()
        ],
    }


def _as_row(interval: Interval) -> list[float]:
    return [*(round(100 * value, 2) for value in (interval.estimate, interval.low, interval.high)), interval.seeds]


def _differences_from(other: Mapping[int, Result] | None, by_seed: Mapping[int, Result]) -> str:
    """Describe an arm by the settings in which it differs from another one."""
    for seed in by_seed.keys() & (other or {}).keys():
        found = by_seed[seed].run.config.differences(other[seed].run.config)  # type: ignore[index]
        return ", ".join(each.split(", not ")[0].replace(": ", " ") for each in found)
    return ""


def _facts(by_seed: Mapping[int, Result]) -> dict[str, Any]:
    """Return means over the seeds of an arm: distances, the alignment's share, minutes; and the selected epochs."""
    same, different, shares = [], [], []
    for result in by_seed.values():
        distances = cross_domain_distances(balanced_part(result.outputs, PER_CELL))
        same += [float(np.median(distances.same))] if len(distances.same) else []
        different += [float(np.median(distances.different))] if len(distances.different) else []
        if result.run.history and not result.run.config.is_baseline:
            last = result.run.history[-1]
            shares.append((result.run.config.alpha or 0) * (last["alignment"] + last["separation"]) / last["loss"])
    runs = [result.run for result in by_seed.values()]
    return {
        "seeds": len(runs),
        "same": _mean(same),
        "different": _mean(different),
        "alignment_share": _mean(shares, 5),
        "selected_epochs": [run.scores.selection.epoch if run.scores.selection else None for run in runs],
        "epochs": sorted({len(run.history) for run in runs}),
        "minutes": _mean([training_speed(list(run.history))["seconds"] / 60 for run in runs]),
    }


def _mean(values: Sequence[float], digits: int = 2) -> float | None:
    return round(statistics.mean(values), digits) if values else None


def write_comparison(found: Mapping[str, Any], file: Path) -> None:
    """Write the result of `compare_arms` as JSON, one line per row of a table."""
    parts = []
    for key, value in found.items():
        text = json.dumps(value)
        if isinstance(value, list):
            text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    with write_atomically(file) as out:
        out.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def as_markdown(found: Mapping[str, Any]) -> str:
    """Format the result of `compare_arms` as Markdown tables."""
    shown = [group for group in GROUPS if any(row[group] for row in found["scores"])]
    heads = [GROUPS[group] for group in shown]

    def cells(row: Mapping[str, Any], signed: bool = False) -> list[str]:
        intervals = [Interval(*row[group]) if row[group] else None for group in shown]
        texts = ["-" if each is None else each.text(scale=1, signed=signed) for each in intervals]
        return [str(max(each.seeds if each else 0 for each in intervals)), *texts]

    parts = [
        f"Macro-average recall in %, {found['test_images']} test images, [95 % interval]: {found['samples']} and, with "
        f"three seeds or more, Student's t over the seeds. {found['groups']}",
        _table(["arm", "seeds", *heads], [[row["arm"], *cells(row)] for row in found["scores"]]),
    ]
    if found["differences"]:
        rows = [[f"{row['arm']} - {row['minus']}", *cells(row, signed=True)] for row in found["differences"]]
        parts += [
            "Paired differences in points: the same seeds, left-out domains and test images.",
            _table(["difference", "seeds", *heads], rows),
        ]
    parts += [
        f"Means over seeds. Distances: medians over pairs of test images from different domains, {PER_CELL} per domain "
        "and class. Alignment: its share of the loss in the last epoch. Minutes: training without validation.",
        _table(
            ["arm", "what it is", "one class", "two classes", "alignment", "selected epochs", "of", "minutes"],
            [_facts_row(row) for row in found["arms"]],
        ),
    ]
    return "\n\n".join(parts)


def _facts_row(row: Mapping[str, Any]) -> list[str]:
    distances = ["-" if row[name] is None else f"{row[name]:.1f}" for name in ("same", "different")]
    share = "-" if row["alignment_share"] is None else f"{100 * row['alignment_share']:.1f} %"
    selected = " ".join(str(epoch or "-") for epoch in row["selected_epochs"])
    epochs = " or ".join(map(str, row["epochs"]))
    return [row["arm"], row["about"], *distances, share, selected, epochs, f"{row['minutes']:.1f}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
