"""Planning the runs for some rows of the table, and checking them before anything starts."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from fastccsa.collections import Manifest
from fastccsa.experiments.rows import EXPERIMENTS, Experiment
from fastccsa.experiments.scale import Scale, train_config
from fastccsa.experiments.validate import (
    check_classes,
    check_folder,
    check_model,
    check_pruned_folder,
    check_writable,
    why_impossible,
)
from fastccsa.pruning.config import PruneConfig
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.runs.folder import SCORES_FILE, epochs_done, experiment_folder
from fastccsa.runs.images import RunImages, open_manifest, select_images, watched_images
from fastccsa.runs.locks import is_locked
from fastccsa.system.errors import InputError


@dataclass(frozen=True, eq=False)
class PlannedRun:
    """One experiment with one seed.

    Attributes:
        row: the experiment.
        seed: seed of everything in the run.
        config: configuration of the training; for a pruned row, that of the run it is pruned from.
        folder: the run folder, which may not exist yet.
        init: folder of the run whose model this one starts from.
        training, validation, test: number of images for training, model selection and testing.
        pruning: configuration of the pruning, only for a pruned row.
        watched: number of images that are also scored after each epoch; see ``score_epochs`` of `TrainConfig`.
    """

    row: Experiment
    seed: int
    config: TrainConfig
    folder: Path
    init: Path | None
    training: int
    validation: int
    test: int
    pruning: PruneConfig | None
    watched: int = 0

    @property
    def name(self) -> str:
        """Letter and seed."""
        return f"{self.row.letter} seed {self.seed}"

    @property
    def is_finished(self) -> bool:
        """Whether the run has test scores."""
        return (self.folder / SCORES_FILE).exists()

    @property
    def state(self) -> Literal["finished", "running", "started", "new"]:
        """The state of the run; running means in another process."""
        if self.is_finished:
            return "finished"
        if is_locked(self.folder):
            return "running"
        return "started" if (self.folder / CONFIG_FILE).exists() else "new"

    @property
    def epochs_to_go(self) -> int:
        """Number of epochs still to train; 0 for a pruned row."""
        if self.is_finished or self.row.threshold is not None:
            return 0
        return max(0, self.config.epochs - epochs_done(self.folder))

    @property
    def images_to_train(self) -> int:
        """Number of images still to pass forward and backward through the network; a pair counts as two."""
        return self.epochs_to_go * self.training * (1 if self.config.is_baseline else 2)

    @property
    def images_to_score(self) -> int:
        """Number of images still to pass only forward: for validation after each epoch, and for the test."""
        return self.epochs_to_go * (self.validation + self.watched) + (0 if self.is_finished else self.test)


@dataclass(frozen=True)
class Plan:
    """The runs of some experiments.

    Attributes:
        runs: all runs, including finished ones, seed by seed, each after the run it starts from.
        added: letters that were not requested, but that others start from.
        skipped: letters that are impossible with this manifest, and why.
        problems: what prevents the plan from being carried out, one line each.
    """

    runs: tuple[PlannedRun, ...]
    added: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def make_plan(
    letters: Iterable[str],
    seeds: Iterable[int],
    manifest: str,
    runs: str | os.PathLike[str],
    scale: Scale | None = None,
    settings: Mapping[str, Any] | None = None,
    skip: bool = False,
    rows: Mapping[str, Experiment] = EXPERIMENTS,
) -> Plan:
    """Plan experiments, and check everything that can be checked without training.

    Args:
        letters: names in ``rows``; the experiments that these start from are added.
        seeds: seeds to run each experiment with.
        manifest: CSV file of the images.
        runs: folder of all runs; each run has the folder ``<letter>/seed<k>`` in it.
        scale: size, epochs and so on; the paper's by default.
        settings: values of `TrainConfig` fields for all runs.
        skip: omit experiments that need something that is missing; otherwise that is a problem.
        rows: the experiments by name, the paper's and possibly others.

    Raises:
        InputError: the manifest or the folder is unusable, or a setting is out of range.
    """
    requested, scale = set(letters), scale or Scale()
    planned_letters = _with_starts(requested, rows)
    resumes = any(Path(runs).glob(f"*/*/{CONFIG_FILE}"))
    base, images = open_manifest(TrainConfig(manifest=manifest), resumes)
    check_writable(Path(runs))
    impossible: dict[str, str] = {}
    for letter in planned_letters:
        start = rows[letter].starts_from
        if why := why_impossible(rows[letter], images):
            impossible[letter] = why
        elif start in impossible:
            impossible[letter] = f"it starts from {start}, and {impossible[start]}"
    problems = [] if skip else [f"{letter}: {why}" for letter, why in impossible.items()]
    select = _selector(images)
    planned: list[PlannedRun] = []
    for seed in seeds:
        for letter in planned_letters:
            if letter in impossible:
                continue
            row = rows[letter]
            config = _config(row, seed, base, Path(runs), scale, settings or {})
            try:
                planned.append(_plan_run(row, config, scale, Path(runs), select, images))
            except InputError as error:
                problems.append(f"{letter}: {error}")
    problems += _untrainable(planned, images.classes)
    return Plan(
        runs=tuple(planned),
        added=tuple(letter for letter in planned_letters if letter not in requested and letter not in impossible),
        skipped=impossible if skip else {},
        problems=tuple(dict.fromkeys(problems)),
    )


def _with_starts(letters: set[str], rows: Mapping[str, Experiment]) -> list[str]:
    """Return the letters and those of the experiments they start from, in an order in which they can be run."""
    found = set(letters)
    while missing := {start for letter in found if (start := rows[letter].starts_from)} - found:
        found |= missing
    return [letter for letter in rows if letter in found]


def _config(
    row: Experiment, seed: int, base: TrainConfig, runs: Path, scale: Scale, settings: Mapping[str, Any]
) -> TrainConfig:
    trained = row if row.threshold is None else EXPERIMENTS["K"]
    init = experiment_folder(runs, trained.starts_from, seed) if trained.starts_from else None
    return train_config(
        trained,
        scale,
        settings,
        manifest=base.manifest,
        manifest_sha256=base.manifest_sha256,
        out=str(experiment_folder(runs, row.letter, seed)),
        init=os.path.abspath(init) if init else None,
        seed=seed,
    )


Select = Callable[[TrainConfig], RunImages]


def _selector(manifest: Manifest) -> Select:
    """Return `select_images` for this manifest, cached for runs that use the same images."""

    @cache
    def select_once(config: TrainConfig) -> RunImages:
        chosen = select_images(config, manifest)
        check_classes(chosen, manifest)
        return chosen

    def select(config: TrainConfig) -> RunImages:
        by_seed = config.fraction < 1 or config.n_sec not in (0, "all")
        return select_once(
            TrainConfig(
                manifest=config.manifest,
                n_sec=config.n_sec,
                fraction=config.fraction,
                primary=config.primary,
                exclude=config.exclude,
                alignment=config.alignment,
                seed=config.seed if by_seed else 0,
            )
        )

    return select


def _plan_run(
    row: Experiment, config: TrainConfig, scale: Scale, runs: Path, select: Select, manifest: Manifest
) -> PlannedRun:
    images = select(config)
    folder = experiment_folder(runs, row.letter, config.seed)
    init = experiment_folder(runs, row.starts_from, config.seed) if row.starts_from else None
    pruning = None
    if row.threshold is None:
        check_folder(folder, config)
    else:
        pruning = PruneConfig(
            run=str(init),
            out=str(folder),
            threshold=row.threshold,
            images=scale.prune_images,
            discrimination_images=min(128, math.ceil(scale.prune_images / 4)),
            seed=config.seed,
        )
        check_pruned_folder(folder, pruning)
    return PlannedRun(
        row=row,
        seed=config.seed,
        config=config,
        folder=folder,
        init=init,
        training=len(images.training),
        validation=len(images.validation),
        test=len(manifest.select("test")),
        pruning=pruning,
        watched=sum(map(len, watched_images(config, manifest, images.domains).values())),
    )


def _untrainable(runs: Sequence[PlannedRun], classes: tuple[str, ...]) -> list[str]:
    """Build each network that the runs need, once, and return the problems."""
    tried: set[tuple[str, str, int, bool]] = set()
    problems = []
    for run in runs:
        config, is_pruned = run.config, run.row.threshold is not None
        key = (config.backbone, "none" if config.init else config.weights, config.size, is_pruned)
        if run.is_finished or key in tried:
            continue
        tried.add(key)
        try:
            check_model(config, classes, is_pruned)
        except InputError as error:
            problems.append(f"{run.row.letter}: {error}")
    return problems
