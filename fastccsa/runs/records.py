"""Finished runs, read from their folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastccsa.evaluation.scores import Scores
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.runs.epochs import read_epoch
from fastccsa.runs.folder import (
    ENVIRONMENT_FILE,
    LAST_SCORES_FILE,
    METRICS_FILE,
    SCORES_FILE,
    experiment_of,
    read_environment,
)
from fastccsa.system.errors import InputError
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.text import printable

NOTE_FILE = "note.txt"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: name of its folder; with several seeds also the arm, as in K/seed0.
        config: its configuration.
        scores: its test scores.
        history: one record per epoch (the lines of metrics.jsonl); empty if there is no such file.
        environment: versions and hardware; None if there is no such file.
        folder: the run folder.
        last: test scores of the last epoch's model; None if there is no such file.
    """

    name: str
    config: TrainConfig
    scores: Scores
    history: tuple[dict[str, Any], ...] = ()
    environment: dict[str, Any] | None = None
    folder: Path = Path()
    last: Scores | None = None

    @property
    def arm(self) -> str | None:
        """What the run is one seed of: for `fastccsa experiment` the letter; None for other runs."""
        experiment = experiment_of(self.folder.resolve())
        return None if experiment is None else experiment[0]

    @property
    def description(self) -> str:
        """The run in a few words, in the order of the columns of the paper's Table 2."""
        config = self.config
        n_sec = {0: "primary domain only", "all": "all secondary images"}.get(
            config.n_sec, f"{config.n_sec} images per class and secondary domain"
        )
        weighted = "weighted" if config.classification_weight == "w" else "unweighted"
        what = {"erm": "baseline", "ccsa": "CCSA"}.get(config.named_algorithm, config.named_algorithm)
        parts = [what, config.backbone, n_sec]
        parts.append(f"{weighted} classification")
        if not config.is_baseline:
            parts.append(f"{'weighted' if config.alignment == 'w' else 'unweighted'} alignment")
        if config.exclude:
            parts.append(f"without {', '.join(config.exclude)}")
        return ", ".join(parts)


@dataclass(frozen=True)
class RunFolder:
    """The runs in a folder.

    Attributes:
        path: the folder.
        runs: the finished runs, sorted by name.
        unfinished: names of the runs without scores.
        note: the text of the folder's ``note.txt``, a notice about these runs for readers of the report; "" if none.
    """

    path: Path
    runs: tuple[Run, ...]
    unfinished: tuple[str, ...] = ()
    note: str = ""


def read_runs(path: Path) -> RunFolder:
    """Read a folder of run folders, a single run folder, or the ``<arm>/seed<k>`` folders of experiments.

    Raises:
        InputError: the folder is missing or has no finished run, or a file of a run is broken.
    """
    if not path.is_dir():
        raise InputError(f"no folder at {path}: give a folder of runs, or one run folder")
    folders = [path] if _is_run(path) else _find_runs(path)
    if not folders:
        raise InputError(f"no run in {path}: a run folder has a {CONFIG_FILE}, which `fastccsa train` writes")
    finished = [folder for folder in folders if (folder / SCORES_FILE).exists()]
    unfinished = tuple(run_name(folder) for folder in folders if folder not in finished)
    if not finished:
        raise InputError(
            f"no run in {path} is finished ({', '.join(unfinished)}: {SCORES_FILE} is missing): "
            "repeat its training command to finish it"
        )
    return RunFolder(
        path=path,
        runs=tuple(_read_run(folder) for folder in finished),
        unfinished=unfinished,
        note=_note(path / NOTE_FILE),
    )


def _find_runs(path: Path) -> list[Path]:
    """List the run folders in ``path``, and the folders ``<arm>/seed<k>`` below it."""
    children = sorted(child for child in path.iterdir() if child.is_dir())
    below = [folder for child in children for folder in child.iterdir() if experiment_of(folder)]
    return sorted(folder for folder in [*children, *below] if _is_run(folder))


def run_name(folder: Path) -> str:
    """Return the name of a run: its folder's name, or ``<arm>/seed<k>`` where there are several seeds of an arm.

    Control characters are made visible.
    """
    folder = folder.resolve()
    experiment = experiment_of(folder)
    return printable(folder.name if experiment is None else f"{experiment[0]}/seed{experiment[1]}")


def _is_run(folder: Path) -> bool:
    """Return whether the folder is meant to be a run; scores without a configuration are an error, not ignored."""
    return any((folder / name).is_file() for name in (CONFIG_FILE, SCORES_FILE))


def _read_run(folder: Path) -> Run:
    environment, last = folder / ENVIRONMENT_FILE, folder / LAST_SCORES_FILE
    return Run(
        name=run_name(folder),
        config=TrainConfig.read(folder),
        scores=Scores.read(folder / SCORES_FILE),
        history=_read_history(folder / METRICS_FILE),
        environment=read_environment(environment) if environment.exists() else None,
        folder=folder,
        last=Scores.read(last) if last.exists() else None,
    )


def _read_history(path: Path) -> tuple[dict[str, Any], ...]:
    advice = "remove the file to report without curves"
    try:
        with reported(path, "cannot be read", advice):
            lines = read_bytes(path).splitlines()
    except FileNotFoundError:
        return ()
    records = []
    for number, line in enumerate(lines, start=1):
        with reported(f"{path}, line {number}", "is not the record of an epoch", advice):
            records.append(read_epoch(load_json(line)))
    return tuple(records)


def _note(path: Path) -> str:
    try:
        with reported(path, "cannot be read", "remove it to report without it"):
            return read_bytes(path).decode("utf-8", "replace").strip()
    except FileNotFoundError:
        return ""
