"""Arms of an experiment: recalls by group of domains and paired differences, with 95 % intervals.

An arm is a folder ``<arm>`` with runs ``seed<k>``: one way of training, with several seeds. Arms are compared on equal
seeds and test images. Groups: "home" is the primary domain; "abroad" the other training domains that show several
classes; "unseen" the domains that were left out; then the means over the domains that show several classes, and over
all. A domain with a single class says nothing about telling classes apart.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fastccsa.evaluation import Outputs
from fastccsa.evaluation.distances import balanced_part, cross_domain_distances
from fastccsa.evaluation.intervals import Bootstrap, Indices, Interval
from fastccsa.runs.folder import OUTPUTS_FILE, SCORES_FILE, training_speed
from fastccsa.runs.images import DEFAULT_PRIMARY
from fastccsa.runs.records import Run, read_runs
from fastccsa.system import machine
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

REPORT_FILE = "arms.json"
GROUPS = {
    "home": "home",
    "abroad": "seen abroad",
    "unseen": "unseen",
    "several": "mean, several classes",
    "all": "mean, all domains",
}
PER_CELL = 30  # images of a domain and class whose distances are measured


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run of an arm, and its model's outputs on the test images."""

    run: Run
    outputs: Outputs

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The domains of each of `GROUPS`, as positions in the outputs' names."""
        names, config = self.outputs.domain_names, self.run.config
        primary = names.index(config.primary or (DEFAULT_PRIMARY if DEFAULT_PRIMARY in names else names[0]))
        tested = np.unique(self.outputs.domains).tolist()
        several = [d for d in tested if len(np.unique(self.outputs.targets[self.outputs.domains == d])) > 1]
        unseen = [d for d in tested if names[d] in config.exclude]
        abroad = [d for d in several if d != primary and d not in unseen]
        groups = {"home": [primary], "abroad": abroad, "unseen": unseen, "several": several, "all": tested}
        return {name: tuple(domains) for name, domains in groups.items()}


Arms = dict[str, dict[int, Result]]


def read_arms(folder: Path, first: Iterable[str] = ()) -> Arms:
    """Read the finished runs ``<folder>/<arm>/seed<k>`` by arm and seed, the arms of ``first`` first.

    Raises:
        InputError: there is none, a file is broken, or the runs do not test the same images or, with the same seed,
            leave out different domains.
    """
    rank = {name: position for position, name in enumerate(first)}
    found = [path.parent for path in folder.glob(f"*/seed*/{SCORES_FILE}")]
    found.sort(key=lambda path: (rank.get(path.parent.name, len(rank)), path.parent.name, len(path.name), path.name))
    arms: Arms = {}
    for path in found:
        (run,) = read_runs(path).runs
        result = Result(run, Outputs.read(path / OUTPUTS_FILE))
        arms.setdefault(path.parent.name, {})[run.config.seed] = result
    if not arms:
        raise InputError(f"no finished run in {folder}: its runs are in <arm>/seed<k>")
    first_of_all = next(iter(next(iter(arms.values())).values()))
    for result in (result for by_seed in arms.values() for result in by_seed.values()):
        _check_same_test(first_of_all, result)
    for seed in {seed for by_seed in arms.values() for seed in by_seed}:
        excluded = {by_seed[seed].run.config.exclude for by_seed in arms.values() if seed in by_seed}
        if len(excluded) > 1:
            raise InputError(f"{folder}: the arms of seed {seed} leave out different domains: {sorted(excluded)}")
    return arms


def _check_same_test(one: Result, other: Result) -> None:
    if one.run.config.manifest_sha256 != other.run.config.manifest_sha256:
        raise InputError(
            f"the manifest changed between {one.run.folder} and {other.run.folder}, so that they may test different "
            "images: report them separately"
        )
    same = one.outputs.domain_names == other.outputs.domain_names and all(
        np.array_equal(getattr(one.outputs, name), getattr(other.outputs, name))
        for name in ("rows", "targets", "domains")
    )
    if not same:
        raise InputError(f"{one.run.folder} and {other.run.folder} test different images: report them separately")


def compare_arms(folder: Path, against: Sequence[str], about: Mapping[str, str]) -> dict[str, Any]:
    """Compare the arms in a folder.

    Args:
        folder: folder of the runs.
        against: arms that every later arm is compared with.
        about: descriptions of known arms, which come first in the tables; others are described by their settings.

    Returns:
        ``scores``: recall of each arm in each group; ``differences``: those between two arms with the same seeds; both
        as ``[estimate, low, high, seeds]`` in %. ``arms``: distances, share of the alignment in the loss, selected
        epochs and minutes of training of each arm. ``domains``: those of each group, by seed.

    Raises:
        InputError: the runs cannot be read or compared.
    """
    arms = read_arms(folder, about)
    some = next(iter(next(iter(arms.values())).values()))
    bootstrap = Bootstrap(some.outputs.targets, some.outputs.domains)
    domains_of = {seed: result.groups for by_seed in arms.values() for seed, result in by_seed.items()}

    def predictions(arm: str, seeds: Iterable[int]) -> Indices:
        return np.stack([arms[arm][seed].outputs.predictions for seed in seeds])

    def row(arm: str, minus: str | None = None) -> dict[str, Any]:
        """Return the intervals by group, over the seeds that have domains in it; None where no seed has."""
        found: dict[str, Any] = {}
        for group in GROUPS:
            seeds = [seed for seed in arms[arm] if minus is None or seed in arms[minus]]
            chosen = {seed: domains for seed in seeds if (domains := domains_of[seed][group])}
            groups = list(chosen.values())
            if not chosen:
                found[group] = None
            elif minus is None:
                found[group] = _as_row(bootstrap.recall(predictions(arm, chosen), groups))
            else:
                pair = predictions(arm, chosen), predictions(minus, chosen)
                found[group] = _as_row(bootstrap.difference(*pair, groups))
        return found

    order = list(arms)
    pairs = [(arm, other) for other in against if other in arms for arm in order[order.index(other) + 1 :]]
    names = some.outputs.domain_names
    return {
        "commit": machine.commit(),
        "test_images": len(some.outputs),
        "domains": {
            seed: {group: [names[domain] for domain in domains] for group, domains in domains_of[seed].items()}
            for seed in sorted(domains_of)
        },
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
        f"Macro-average recall in %, {found['test_images']} test images; [95 % interval over seeds and images]. "
        f"{_domains_text(found['domains'], shown)}",
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


def _domains_text(domains: Mapping[int, Mapping[str, Sequence[str]]], shown: Sequence[str]) -> str:
    """Say which domains each group has, with the seeds where they differ by seed."""
    texts = []
    for group in shown:
        seeds: dict[str, list[int]] = {}
        for seed, groups in domains.items():
            seeds.setdefault(", ".join(groups[group]) or "none", []).append(seed)
        each = [
            names if len(seeds) == 1 else f"{names} (seed {', '.join(map(str, found))})"
            for names, found in seeds.items()
        ]
        texts.append(f"{GROUPS[group]}: {'; '.join(each)}.")
    return " ".join(text[0].upper() + text[1:] for text in texts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
