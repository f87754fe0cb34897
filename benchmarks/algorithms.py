"""Algorithms compared on domains that they never saw: recall and AUROC with intervals, and what can be told apart.

Reads runs ``<arm>/seed<k>`` of the benchmark `method` whose seeds leave one domain after the other out. P-values are
corrected for all differences of a metric and a group of domains together (Holm): each question has its own family.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from benchmarks.method import ARMS
from fastccsa.evaluation.intervals import Interval, holm
from fastccsa.evaluation.metrics import METRICS
from fastccsa.reporting.arms import Arms, read_arms
from fastccsa.reporting.arms_table import write_comparison
from fastccsa.reporting.comparison import Comparison, left_out
from fastccsa.runs.folder import ENVIRONMENT_FILE, read_environment, training_speed
from fastccsa.system.errors import InputError

METRIC_KEYS = ("recall", "auroc")
TITLES = {"recall": "Macro-average recall", "auroc": "AUROC"}
GROUPS = {"unseen": "unseen", "home": "home", "abroad": "seen abroad"}
REPORT_FILE = "algorithms.json"
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A difference between two arms, with its p-value corrected for the others of its metric and group."""

    arm: str
    minus: str
    interval: Interval
    p: float

    def seen_from(self, arm: str) -> tuple[str, Interval]:
        """Return the other arm, and the difference as what it has more than ``arm``."""
        if self.minus == arm:
            return self.arm, self.interval
        one = self.interval
        return self.minus, Interval(-one.estimate, -one.high, -one.low, one.seeds, one.p)

    @property
    def is_told_apart(self) -> bool:
        """Whether it differs from 0 at the level of `LEVEL`, corrected."""
        return self.p < LEVEL


def main(options: SimpleNamespace) -> None:
    """Print the tables and the sentences, and write the numbers into the folder of the runs."""
    if options.report is None:
        raise click.UsageError("give --report, the folder of the runs of `method`")
    found = compare_algorithms(options.report, range(options.seeds), options.against.split(","))
    write_comparison(found, options.report / REPORT_FILE)
    click.echo(as_markdown(found))


def compare_algorithms(folder: Path, seeds: Sequence[int], against: Sequence[str]) -> dict[str, Any]:
    """Compare the arms of a folder that have all ``seeds``, each with those of ``against``.

    Returns:
        ``scores`` and ``differences``: records of metric, arm, group, estimate, low and high in %, seeds; the
        differences also with p and p_holm. ``groups``: titles of the groups. ``words``: what is told apart, by metric
        and group. ``arms``: what each is, and the images and minutes that its training takes, the start from A
        included. ``left_out``: arms that lack a seed. ``origin``: commit and machine of the runs.

    Raises:
        InputError: fewer than two arms have all seeds, or the runs cannot be read or compared.
    """
    found = read_arms(folder, ARMS)
    arms = {
        arm: {seed: by_seed[seed] for seed in seeds} for arm, by_seed in found.items() if by_seed.keys() >= {*seeds}
    }
    if len(arms) < 2:
        raise InputError(
            f"{folder}: fewer than two arms have the seeds {', '.join(map(str, seeds))}: give fewer --seeds"
        )
    missing = [name for name in against if name not in arms]
    if missing:
        raise InputError(f"--against: {', '.join(missing)} is not among the arms with all seeds: {', '.join(arms)}")
    comparison = Comparison(arms, [METRICS[key] for key in METRIC_KEYS], by_domain=True)
    groups = _groups(comparison)
    scores: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    words: dict[str, str] = {}
    for key in METRIC_KEYS:
        for arm in arms:
            scores += _records(key, arm, comparison.row(key, arm), groups)
        pairs = [
            (arm, other) for number, other in enumerate(against) for arm in arms if arm not in against[: number + 1]
        ]
        rows = {pair: comparison.row(key, *pair) for pair in pairs}
        for group, title in groups.items():
            cells = {pair: cell for pair, row in rows.items() if (cell := row[group]) is not None}
            corrected = holm([cell.p or 0.0 for cell in cells.values()])  # a difference has a p-value
            these = [Difference(*pair, cell, p) for (pair, cell), p in zip(cells.items(), corrected, strict=True)]
            for each in these:
                record = {
                    "metric": key,
                    "arm": each.arm,
                    "minus": each.minus,
                    "group": group,
                    **_numbers(each.interval),
                }
                differences.append({**record, "p": round(each.interval.p or 0.0, 5), "p_holm": round(each.p, 5)})
            if group in GROUPS and these:
                words[f"{key} {group}"] = in_words(f"{TITLES[key]}, {title}", these, against)
    return {
        "seeds": len(seeds),
        "samples": comparison.remark,
        "groups": groups,
        "domains": comparison.groups_text,
        "scores": scores,
        "differences": differences,
        "words": words,
        "arms": [{"arm": arm, "about": ARMS[arm].about if arm in ARMS else "", **_cost(arms, arm)} for arm in arms],
        "left_out": {arm: sorted(by_seed) for arm, by_seed in found.items() if arm not in arms},
        "origin": _origin(arms),
    }


def in_words(title: str, differences: Sequence[Difference], against: Sequence[str]) -> str:
    """Say which arms are above and below each of ``against``, by how much, and which cannot be told apart from it."""
    sentences = []
    for base in against:
        these = [each for each in differences if each.minus == base or (each.arm == base and each.minus in against)]
        apart = [each.seen_from(base) for each in these if each.is_told_apart]
        same = [each.seen_from(base)[0] for each in these if not each.is_told_apart]
        more, less = (
            [f"{other} {found.text(signed=True)}" for other, found in apart if (found.estimate > 0) == above]
            for above in (True, False)
        )
        kinds = {"above it": more, "below it": less, "not told apart from it": same}
        parts = [f"{what}: {', '.join(names)}" for what, names in kinds.items() if names]
        sentences.append(f"{base}: {'; '.join(parts)}.")
    count = len(differences)
    return f"{title} ({count} differences, corrected together). Against {' Against '.join(sentences)}"


def _groups(comparison: Comparison) -> dict[str, str]:
    """Return the titles of the columns: unseen, each domain where it is unseen, home, and seen abroad."""
    domains = {domain for groups in comparison.groups_by_seed.values() for domain in groups["unseen"]}
    each = {left_out(domain): left_out(domain) for domain in sorted(domains)}
    each = {key: title for key, title in each.items() if key in comparison.groups}
    return {"unseen": GROUPS["unseen"], **each, "home": GROUPS["home"], "abroad": GROUPS["abroad"]}


def _records(
    key: str, arm: str, row: Mapping[str, Interval | None], groups: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    for group in groups:
        if (cell := row[group]) is not None:
            yield {"metric": key, "arm": arm, "group": group, **_numbers(cell)}


def _numbers(interval: Interval) -> dict[str, Any]:
    values = {name: round(100 * getattr(interval, name), 4) for name in ("estimate", "low", "high")}
    return {**values, "seeds": interval.seeds}


def _cost(arms: Arms, arm: str) -> dict[str, float]:
    """Return thousands of images that the training takes in, and its minutes; means over the seeds."""
    images, minutes = 0.0, 0.0
    for seed, result in arms[arm].items():
        runs = [result.run]
        if result.run.config.init and "A" in arms and arm != "A":
            runs.append(arms["A"][seed].run)
        for run in runs:
            speed = training_speed(list(run.history))
            images += speed["seconds"] * speed["images_per_second"] / 1000
            minutes += speed["seconds"] / 60
    return {"thousand_images": round(images / len(arms[arm]), 1), "minutes": round(minutes / len(arms[arm]), 1)}


def _origin(arms: Arms) -> dict[str, Any]:
    """Return commits, torch and processors of the runs."""
    found: dict[str, set[str]] = {"commit": set(), "torch": set(), "processor": set(), "gpu": set()}
    for by_seed in arms.values():
        for result in by_seed.values():
            about = read_environment(result.run.folder / ENVIRONMENT_FILE)
            found["torch"].add(about.get("packages", {}).get("torch") or "unknown")
            for name in ("commit", "processor", "gpu"):
                found[name].add(about.get(name) or "none")
    return {name: sorted(values) for name, values in found.items()}


def as_markdown(found: Mapping[str, Any]) -> str:
    """Format the result of `compare_algorithms` as Markdown."""
    parts = [
        f"In %, [95 % intervals]: {found['samples']} and, with three seeds or more, Student's t over the seeds; "
        f"{found['seeds']} seeds. {found['domains']} p: corrected for all differences of a column (Holm); not given "
        "where fewer than three seeds say nothing about how much seeds vary."
    ]
    if found["left_out"]:
        each = (f"{arm} (seeds {', '.join(map(str, seeds))})" for arm, seeds in found["left_out"].items())
        parts.append(f"Left out, because a seed is missing: {'; '.join(each)}.")
    for key in METRIC_KEYS:
        parts += [f"**{TITLES[key]}**", scores_table(found, key), differences_table(found, key)]
    parts += [f"- {text}" for text in found["words"].values()]
    return "\n\n".join([*parts, cost_table(found)])


def scores_table(found: Mapping[str, Any], key: str) -> str:
    """Return the table of the arms' values of a metric."""
    return _table(found, [record for record in found["scores"] if record["metric"] == key], ("arm",))


def differences_table(found: Mapping[str, Any], key: str) -> str:
    """Return the table of the differences of a metric, with corrected p-values."""
    return _table(found, [record for record in found["differences"] if record["metric"] == key], ("arm", "minus"))


def cost_table(found: Mapping[str, Any]) -> str:
    """Return the table of what the arms are, and of what their training costs."""
    lines = ["| arm | what it is | thousand images | minutes |", "| --- | --- | --- | --- |"]
    for each in found["arms"]:
        cost = f"{each['thousand_images']:.0f} | {each['minutes']:.1f}"
        lines.append(f"| {each['arm']} | {each['about']} | {cost} |")
    return "\n".join(lines)


def _table(found: Mapping[str, Any], records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    groups = [group for group in found["groups"] if any(record["group"] == group for record in records)]
    rows: dict[str, dict[str, str]] = {}
    for record in records:
        interval = Interval(record["estimate"], record["low"], record["high"], record["seeds"])
        text = interval.text(scale=1, signed="minus" in record)
        if "p_holm" in record and interval.covers_seeds:  # otherwise it would be about these networks only
            text += f" p {record['p_holm']:.2g}" if record["p_holm"] >= 0.001 else " p <0.001"
        rows.setdefault(" - ".join(record[name] for name in names), {})[record["group"]] = text
    head = ["difference" if "minus" in names else "arm", *(found["groups"][group] for group in groups)]
    lines = [
        head,
        ["---"] * len(head),
        *([name, *(row.get(group, "-") for group in groups)] for name, row in rows.items()),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
