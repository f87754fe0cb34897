"""Carrying out a sweep, with Optuna's sampler and storage."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastccsa.evaluation import Scores
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.runs.locks import lock_run
from fastccsa.sweep.config import SweepConfig
from fastccsa.sweep.space import Setting, Span
from fastccsa.system.devices import pick_device
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.system.extras import require
from fastccsa.system.progress import Say, status_lines
from fastccsa.training import train

if TYPE_CHECKING:
    import optuna

STUDY_FILE = "optuna.db"
_STUDY = "sweep"
_FOLDER, _REASON, _EPOCH, _MINUTES = "folder", "reason", "epoch", "minutes"  # Optuna's user attributes of a trial
# With fewer trials than these, no trial is ended early, and settings are drawn at random.
_STARTUP = 5

State = Literal["finished", "pruned", "failed", "unfinished"]
logger = logging.getLogger("fastccsa.sweep")


@dataclass(frozen=True)
class Trial:
    """A trial of a sweep.

    Attributes:
        number: its number, from 0.
        state: how it ended. A failed one raised an error, such as a loss that is not finite.
        values: values of the varied settings.
        recall: validation recall of the selected epoch, as the rule of selection averages it, in [0, 1]; of a pruned
            trial the highest one; None if there is none.
        epoch: the selected epoch, or the last one of a pruned trial.
        folder: its run folder.
        minutes: how long it took.
        reason: why it failed; "" if it did not.
    """

    number: int
    state: State
    values: dict[str, Any]
    recall: float | None
    epoch: int | None
    folder: Path
    minutes: float | None
    reason: str = ""


def sweep(config: SweepConfig, progress: bool = True) -> list[Trial]:
    """Carry out a sweep, or resume it where it stopped.

    Trials are compared by the validation recall of the epoch that the run's rule of selection keeps. Test images are
    scored at the end of each trial, as of any run, but neither the search nor its result reads these scores.

    Args:
        config: the sweep.
        progress: print status lines on stdout, and show progress bars on a terminal.

    Returns:
        The trials, by falling recall. With a time limit there may be fewer than ``config.trials``.

    Raises:
        InputError: something in the input keeps every trial from starting, or the folder is in use or holds another
            sweep.
        Interrupted: SIGTERM, SIGHUP or Ctrl-C stopped it; the same call resumes it, within the trial.
    """
    require("optuna")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("a sweep runs in one process: start it without torchrun")
    say = status_lines(progress)
    _check_images(config)
    with lock_run(Path(config.out)):
        folder = config.open()
        study = _open_study(folder, config)
        _requeue(study)
        deadline = time.monotonic() + 60 * config.time_limit if config.time_limit else None
        while len(_counted(study)) < config.trials:
            left = None if deadline is None else (deadline - time.monotonic()) / 60
            if left is not None and left <= 0:
                break
            if not _perform(study, config, folder, left, say, progress):
                break
        return _trials(study, folder)


def _check_images(config: SweepConfig) -> None:
    """Check what is the same for all trials before the first one: the images and the device."""
    for values in product(*(setting.examples for setting in config.settings)):
        names = [setting.name for setting in config.settings]
        try:
            run = config.run(dict(zip(names, values, strict=True)), Path(config.out) / "trial")
        except InputError:
            continue  # these values do not go together; `SweepConfig` found some that do
        run, manifest = open_manifest(run, resumes=False)
        select_images(run, manifest)
        pick_device(run.device)
        return


def _open_study(folder: Path, config: SweepConfig) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = folder.resolve() / STUDY_FILE
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{file}",
            study_name=_STUDY,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(_STARTUP, n_warmup_steps=2)
            if config.prune
            else optuna.pruners.NopPruner(),
        )
        done = len(study.trials)
    # SQLAlchemy's, Optuna's and SQLite's own errors.
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{file} is not the record of a sweep ({reason}); restore it, or choose another folder"
        ) from error
    # The sampler's state is not stored: another seed at each call, so that it does not draw the same values again.
    seed = int(config.training.get("seed", 0)) + done
    study.sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, seed=seed)
    return study


def _requeue(study: optuna.Study) -> None:
    """Queue again the trials that an earlier call did not end; they go on in their run folders."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params, user_attrs=dict(trial.user_attrs))


def _counted(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the trials that count: all that ended, without those that were queued again."""
    from optuna.trial import TrialState

    ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in ended if trial.state != TrialState.FAIL or _REASON in trial.user_attrs]


def _perform(
    study: optuna.Study, config: SweepConfig, folder: Path, minutes: float | None, say: Say, progress: bool
) -> bool:
    """Carry out one trial; return whether there is time for another."""
    from optuna.trial import TrialState

    trial = study.ask()
    values = {setting.name: _draw(trial, setting) for setting in config.settings}
    name = trial.user_attrs.get(_FOLDER) or f"trial{len(_counted(study)):03d}"
    trial.set_user_attr(_FOLDER, name)
    say(f"{name}: {', '.join(f'{key} {_short(value)}' for key, value in values.items())}")
    started = time.monotonic()
    before = float(trial.user_attrs.get(_MINUTES, 0.0))
    try:
        scores = train(
            config.run(values, folder / name, minutes or 0.0),
            progress,
            on_epoch=_pruning(trial) if config.prune else None,
        )
    except Interrupted as stop:
        trial.set_user_attr(_MINUTES, before + (time.monotonic() - started) / 60)
        if stop.status:
            raise
        say(f"the time limit is reached in {name}; the same command continues there")
        return False
    except _Pruned as pruned:
        trial.set_user_attr(_EPOCH, pruned.epoch)
        trial.set_user_attr(_MINUTES, before + (time.monotonic() - started) / 60)
        study.tell(trial, state=TrialState.PRUNED)
        say(f"{name}: ended after epoch {pruned.epoch}, below the median of earlier trials")
        return True
    except InputError as error:
        if not _counted(study):
            raise  # the first trial: what stops it most likely stops all
        trial.set_user_attr(_REASON, str(error))
        trial.set_user_attr(_MINUTES, before + (time.monotonic() - started) / 60)
        study.tell(trial, state=TrialState.FAIL)
        logger.warning("%s failed: %s", name, error)
        return True
    selected = _selection(scores)
    trial.set_user_attr(_EPOCH, selected[0])
    trial.set_user_attr(_MINUTES, before + (time.monotonic() - started) / 60)
    study.tell(trial, selected[1])
    return True


def _selection(scores: Scores) -> tuple[int, float]:
    """Return the selected epoch and its validation recall. Nothing else of the scores is read."""
    assert scores.selection is not None
    return scores.selection.epoch, scores.selection.recall


class _Pruned(Exception):
    def __init__(self, epoch: int) -> None:
        super().__init__(epoch)
        self.epoch = epoch


def _pruning(trial: optuna.Trial) -> Callable[[int, float], None]:
    """Return what reports the highest recall so far after each epoch, and ends a trial that is not worth going on."""
    highest = 0.0

    def on_epoch(epoch: int, recall: float) -> None:
        nonlocal highest
        highest = max(highest, recall)
        trial.report(highest, epoch)
        if trial.should_prune():
            raise _Pruned(epoch)

    return on_epoch


def _draw(trial: optuna.Trial, setting: Setting) -> Any:
    if not isinstance(setting, Span):
        return trial.suggest_categorical(setting.name, setting.values)
    if setting.whole:
        return trial.suggest_int(setting.name, int(setting.low), int(setting.high), log=setting.log)
    return trial.suggest_float(setting.name, setting.low, setting.high, log=setting.log)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _trials(study: optuna.Study, folder: Path) -> list[Trial]:
    from optuna.trial import TrialState

    names: dict[TrialState, State] = {
        TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
    }  # fmt: skip
    found = []
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in (*_counted(study), *running):
        about = trial.user_attrs
        recall = trial.value
        if recall is None:
            recall = max(trial.intermediate_values.values(), default=None)
        found.append(
            Trial(
                number=trial.number,
                state=names.get(trial.state, "unfinished"),
                values=dict(trial.params),
                recall=trial.value
                if trial.value is not None
                else max(trial.intermediate_values.values(), default=None),
                epoch=about.get(_EPOCH),
                folder=folder / str(about.get(_FOLDER, "")),
                minutes=about.get(_MINUTES),
                reason=str(about.get(_REASON, "")),
            )
        )
    # A pruned trial never counts as better than a finished one.
    return sorted(found, key=lambda trial: (trial.state != "finished", -(trial.recall or 0.0), trial.number))
