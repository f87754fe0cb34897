"""What each part of the method contributes: many variants of training ("arms") with several seeds, compared in pairs.

An arm is the default configuration with a few settings changed. Baselines start from their own weights, all others
from arm A with the same seed. With --leave-out, seed k leaves domain k (modulo their number) out of the training and
the selection of every arm, so that all arms are also compared on a domain that they have never seen. Repeating the
command resumes interrupted runs and keeps finished ones; further arms and seeds can be added to the same folder.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

from fastccsa.experiments.describe import describe_plan
from fastccsa.experiments.plan import Plan, PlannedRun
from fastccsa.experiments.rows import Experiment
from fastccsa.experiments.scale import Scale, parse_scale, parse_settings, train_config
from fastccsa.experiments.scheduler import execute, make_slots
from fastccsa.experiments.validate import check_classes, check_folder, check_writable
from fastccsa.reporting.arms_table import REPORT_FILE, as_markdown, compare_arms, write_comparison
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import experiment_folder
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.system.errors import InputError


@dataclass(frozen=True)
class Arm:
    """A variant of training: its name, a line of description, and the settings in which it differs from K."""

    name: str
    about: str
    settings: Mapping[str, Any]


ARMS = {
    arm.name: arm
    for arm in (
        Arm("A", "baseline on the primary domain", {"alignment": "-", "n_sec": 0}),
        Arm("E", "baseline on all training domains", {"alignment": "-"}),
        Arm("S", "the sampler: pairs and weighted cross-entropy without alignment, from A", {"alpha": 0.0}),
        Arm("K", "the default configuration, from A", {}),
        Arm("authors", "K by the recipe of the authors' code", {"recipe": "authors"}),
        Arm("paper", "K by the recipe of the paper's text", {"recipe": "paper"}),
        Arm("quarter", "K with a quarter of the alignment", {"alpha": 0.2}),
        Arm("fourfold", "K with four times the alignment", {"alpha": 0.8}),
        Arm("wide", "K with twice the margin", {"margin": 2.4}),
        Arm(
            "sphere",
            "K on normalised features, margin 1",
            {
                "normalize_features": True,
                "margin": 1.0,
                "margin_unit": "feature",
            },
        ),
        Arm("uncapped", "K without a cap on the weights of pairs", {"pair_weight_cap": 0.0}),
        Arm("unweighted", "K with unweighted alignment", {"alignment": "u"}),
        Arm("separate", "K with a forward pass for each stream", {"joint_forward": False}),
        Arm("all", "K over all pairs of a batch", {"pairs": "all"}),
        # A memory grows from step to step, which a CUDA graph cannot.
        Arm(
            "memory",
            "K over all pairs with a memory",
            {"pairs": "all", "memory": 1024, "cuda_graph": False},
        ),
        Arm("ema", "K with a moving average of the weights", {"ema": 0.99}),
        *(
            Arm(name, f"{about}, on all training domains", {"alignment": "-", "algorithm": name})
            for name, about in {
                "balanced": "ERM on balanced draws of classes and domains",
                "focal": "focal loss",
                "logit_adjusted": "logit adjustment",
                "mixup": "mixup",
                "coral": "CORAL",
                "mmd": "MMD",
                "irm": "IRM",
                "group_dro": "GroupDRO",
                "rsc": "RSC",
                "ermpp": "ERM++",
            }.items()
        ),
        Arm("swad", "E, and SWAD as the mean of the weights", {"alignment": "-", "average": "swad"}),
    )
}
# The settings that the description of an experiment also names, by their names there.
_IN_ROW = {
    "n_sec": "n_sec", "backbone": "backbone", "classification_weight": "classification", "alignment": "alignment",
}  # fmt: skip


def main(options: SimpleNamespace) -> None:
    """Run the arms unless only a report is requested; print the report, and write it into the folder of the runs."""
    failed = False
    folder = options.report
    if folder is None:
        if options.csv is None or options.folder is None:
            raise click.UsageError("give --manifest and --out to run the arms, or --report to read finished runs")
        folder = options.folder
        failed = _run(options)
    found = compare_arms(folder, options.against.split(","), {arm.name: arm.about for arm in ARMS.values()})
    write_comparison(found, folder / REPORT_FILE)
    click.echo(as_markdown(found))
    if failed:
        sys.exit(1)


def _run(options: SimpleNamespace) -> bool:
    """Carry out all runs, and return whether one of them failed."""
    parse_arms(",".join(options.arms))  # no arm may be defined twice
    plans = [
        plan_arms(
            parse_arms(arms),
            options.seeds,
            options.csv,
            options.folder,
            parse_scale(options.scale),
            parse_settings(options.settings),
            [name for name in (options.leave_out or "").split(",") if name],
        )
        for arms in options.arms
    ]
    # Arm A is in all plans that need it.
    runs: dict[Path, PlannedRun] = {}
    for run in (run for part in plans for run in part.runs):
        runs.setdefault(run.folder, run)
    plan = Plan(tuple(runs.values()))
    click.echo(describe_plan(plan))
    outcomes = execute(plan.runs, make_slots(options.jobs, options.device))
    failed = {run: outcome for run, outcome in outcomes.items() if outcome.status == "failed"}
    for run, outcome in failed.items():
        click.echo(f"fastccsa: {run.name}: {outcome.message}", err=True)
    return bool(failed)


def parse_arms(text: str) -> list[Arm]:
    """Parse ``A,K,name=key:value+key:value``; A is added first if an arm starts from it.

    Raises:
        InputError: an unknown arm, a name that is used twice or cannot name a folder, or an invalid setting.
    """
    arms: dict[str, Arm] = {}
    for word in text.split(","):
        name, equals, settings = word.partition("=")
        if name in arms or (name in ARMS and equals):
            raise InputError(f"arms: {name!r} is defined twice: give each arm a name of its own")
        if equals and re.fullmatch(r"\w[\w.-]*", name):
            pairs = re.split(r"\+(?=\w+:)", settings)  # not at the + of 1e+3
            values = parse_settings([pair.replace(":", "=", 1) for pair in pairs])
            arms[name] = Arm(name, "", values)
        elif name in ARMS:
            arms[name] = ARMS[name]
        else:
            raise InputError(f"arms: {word!r} is neither one of {', '.join(ARMS)} nor name=key:value+key:value")
    if any(_row(arm, {}, None).starts_from == "A" for arm in arms.values()):
        arms = {"A": ARMS["A"], **arms}
    return list(arms.values())


def plan_arms(
    arms: Sequence[Arm],
    seeds: int,
    manifest: Path,
    runs: Path,
    scale: Scale,
    settings: Mapping[str, Any],
    leave_out: Sequence[str] = (),
) -> Plan:
    """Plan the runs ``<runs>/<arm>/seed<k>`` of all arms, seed by seed.

    Args:
        arms: the arms; A first if others start from it.
        seeds: number of seeds.
        manifest: CSV file of the images.
        runs: folder of all runs.
        scale: image size, epochs and so on.
        settings: settings of all arms; an arm's own take precedence.
        leave_out: domains to leave out; seed k leaves out number k modulo their number.

    Raises:
        InputError: the manifest is unusable, a setting is out of range, or a folder holds another run.
    """
    check_writable(runs)
    base, images = open_manifest(TrainConfig(manifest=str(manifest)))

    def planned() -> Iterator[PlannedRun]:
        for seed in range(seeds):
            without = leave_out[seed % len(leave_out)] if leave_out else None
            for arm in arms:
                row = _row(arm, settings, without)
                init = experiment_folder(runs, row.starts_from, seed) if row.starts_from else None
                folder = experiment_folder(runs, arm.name, seed)
                where: dict[str, Any] = {
                    "manifest": base.manifest,
                    "manifest_sha256": base.manifest_sha256,
                    "out": str(folder),
                }
                where |= {"init": str(init.absolute()) if init else None, "seed": seed}
                try:
                    config = train_config(row, scale, {**settings, **arm.settings}, **where)
                    check_folder(folder, config)
                    chosen = select_images(config, images)
                    check_classes(chosen, images)
                except InputError as error:
                    raise InputError(f"arm {arm.name}, seed {seed}: {error}") from error
                counts = len(chosen.training), len(chosen.validation), len(images.select("test"))
                yield PlannedRun(row, seed, config, folder, init, *counts, pruning=None)

    return Plan(tuple(planned()))


def _row(arm: Arm, settings: Mapping[str, Any], without: str | None) -> Experiment:
    """Return the arm as an experiment, which the plan and the scheduler know how to handle."""
    own = {**settings, **arm.settings}
    return Experiment(arm.name, {}, without=without, **{_IN_ROW[key]: own[key] for key in own.keys() & _IN_ROW})
