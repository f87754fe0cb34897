"""The scores of experiments on domains left out, under the three rules of model selection of DomainBed.

Gulrajani and Lopez-Paz, In search of lost domain generalization, ICLR 2021. There, rules choose among hyperparameters;
here, among the epochs of a run.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fastccsa.experiments.leave_one_out import WITHOUT
from fastccsa.experiments.plan import PlannedRun
from fastccsa.runs.records import Run, read_runs
from fastccsa.runs.selection import oracle
from fastccsa.system.files import write_atomically

FILE = "left_out.json"
RULES = {
    "training": "training-domain validation: the rule of the run, on validation images of the training domains",
    "leave_one_out": "leave-one-domain-out validation: the epoch that is best on the other domains, on average, each "
    "in a run that leaves it out as well (--nested)",
    "oracle": "test-domain validation, the oracle, which CHEATS: the epoch that is best on the domain left out",
}


@dataclass(frozen=True)
class Left:
    """The score of a run on the domain that it left out, under a rule.

    Attributes:
        experiment: name of the experiment without the domain, such as K or coral.
        domain: the domain left out.
        seed: seed of the run.
        rule: one of `RULES`.
        epoch: the epoch that the rule chose, from 1.
        recall: macro-average recall on the domain's test images, in [0, 1].
        classes: number of classes among these images.
    """

    experiment: str
    domain: str
    seed: int
    rule: str
    epoch: int
    recall: float
    classes: int


def scores_on_left_out(planned: Iterable[PlannedRun]) -> list[Left]:
    """Score the finished runs of a plan under each rule for which they recorded enough.

    Raises:
        InputError: a file of a run is broken.
    """
    runs: dict[tuple[str, frozenset[str], int], Run] = {}
    for each in planned:
        name, found, _ = each.row.letter.partition(WITHOUT)
        if found and each.is_finished:
            runs[name, frozenset(each.row.settings["exclude"]), each.seed] = read_runs(each.folder).runs[0]
    scores: list[Left] = []
    for (name, left_out, seed), run in runs.items():
        if len(left_out) > 1:
            continue
        (domain,) = left_out
        nested = {
            other: found
            for (experiment, both, same), found in runs.items()
            if experiment == name and same == seed and domain in both
            for other in both - {domain}
        }
        own = run.scores.domains[domain]
        classes = sum(recall is not None for recall in own.recall)
        for rule, epoch in _choices(run, nested).items():
            recall = own.macro_recall
            if rule != "training" and run.config.average != "swad":  # which selects no epoch by any rule
                recall = run.history[epoch - 1]["test"][domain]
            scores.append(Left(name, domain, seed, rule, epoch, recall, classes))
    return scores


def _choices(run: Run, nested: Mapping[str, Run]) -> dict[str, int]:
    """Return the epoch that each rule chooses; ``nested`` are the runs that leave out another domain as well."""
    assert run.scores.selection is not None
    choices = {"training": run.scores.selection.epoch}
    if not run.history or not all("test" in record for record in run.history):
        return choices
    if nested:
        by_epoch = _recalls_elsewhere(run, nested)
        if by_epoch:
            choices["leave_one_out"] = by_epoch.index(max(by_epoch)) + 1
    if (cheating := oracle(run.history)) is not None:
        choices["oracle"] = cheating[0]
    return choices


def _recalls_elsewhere(run: Run, nested: Mapping[str, Run]) -> list[float]:
    """Return, for each epoch, the mean recall on validation images of the other domains, where they are left out too.

    Domains with a single class, on which a constant answer is right, count only if all are such.
    """

    def several(name: str) -> bool:
        return sum(recall is not None for recall in run.scores.domains[name].recall) > 1

    recalls = {name: [record.get("unseen", {}).get(name) for record in found.history] for name, found in nested.items()}
    recalls = {name: values for name, values in recalls.items() if values and None not in values}
    recalls = {name: values for name, values in recalls.items() if several(name)} or recalls
    if not recalls:
        return []
    return [statistics.mean(epoch) for epoch in zip(*recalls.values(), strict=False)][: len(run.history)]


def write_scores(scores: Sequence[Left], folder: Path) -> None:
    """Write the scores into ``left_out.json``, one line for each."""
    with write_atomically(folder / FILE) as file:
        file.write_text("[\n" + ",\n".join(json.dumps(asdict(score)) for score in scores) + "\n]\n")


def describe_scores(scores: Sequence[Left]) -> str:
    """Return a table for each rule: experiments by domains left out, as means and standard errors over the seeds."""
    domains = list(dict.fromkeys(score.domain for score in scores))
    single = {score.domain for score in scores if score.classes < 2}
    mean_over = [domain for domain in domains if domain not in single] or domains
    lines = ["Macro-average recall in % on test images of the domain left out: mean ± standard error over the seeds."]
    if single & set(domains) and mean_over != domains:
        lines.append(f"The mean is over the domains with several classes, without {', '.join(sorted(single))}.")
    for rule, words in RULES.items():
        cells = {
            (score.experiment, score.domain, score.seed): 100 * score.recall for score in scores if score.rule == rule
        }
        lines += ["", words, ""]
        if not cells:
            lines.append("Not recorded.")
            continue
        lines.append(f"| experiment | {' | '.join(domains)} | mean |")
        lines.append(f"| :-- | {' | '.join(['--:'] * (len(domains) + 1))} |")
        for name in dict.fromkeys(experiment for experiment, _, _ in cells):
            row = [_mean([value for key, value in cells.items() if key[:2] == (name, domain)]) for domain in domains]
            row.append(_mean(_means_by_seed(cells, name, mean_over)))
            lines.append(f"| {name} | {' | '.join(row)} |")
    return "\n".join(lines)


def _means_by_seed(cells: Mapping[tuple[str, str, int], float], name: str, domains: Sequence[str]) -> list[float]:
    """Return the mean over the domains for each seed that has them all."""
    seeds = dict.fromkeys(seed for experiment, _, seed in cells if experiment == name)
    complete = [seed for seed in seeds if all((name, domain, seed) in cells for domain in domains)]
    return [statistics.mean(cells[name, domain, seed] for domain in domains) for seed in complete]


def _mean(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}"
