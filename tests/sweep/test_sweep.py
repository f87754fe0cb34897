"""Sweeps whose trainings are replaced by a function with a known best value; one with real trainings."""

from __future__ import annotations

import csv
import math
import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fastccsa.cli import main
from fastccsa.evaluation import Scores, Selection, score
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import open_run, write_scores
from fastccsa.sweep import SweepConfig, Trial, sweep, to_text, write_table
from fastccsa.sweep import study as study_module
from fastccsa.system.errors import InputError, Interrupted

pytestmark = pytest.mark.skipif(find_spec("optuna") is None, reason="the extra sweep is not installed")

BEST_LR = 1e-3
Outcome = Callable[[TrainConfig, Callable[[int, float], None] | None], float]


def recall_of(config: TrainConfig) -> float:
    """Return a recall that is highest, 0.9, at a learning rate of 1e-3."""
    return 0.9 - 0.1 * abs(math.log10(config.lr / BEST_LR))


def scores_of(recall: float) -> Scores:
    """Return scores whose test recall is lower the higher the validation recall is."""
    right = int(100 * (1 - recall))
    targets, predictions = np.zeros(100, int), np.where(np.arange(100) < right, 0, 1)
    found = score(targets, predictions, np.zeros(100, int), ("nv", "mel"), ("HAM",))
    return Scores(found.split, found.classes, found.domains, Selection("highest", 3, recall))


class Trainings:
    """Stands for `train`: notes the configurations, and finishes runs at once."""

    def __init__(self) -> None:
        self.configs: list[TrainConfig] = []
        self.before: Outcome = lambda config, on_epoch: recall_of(config)

    def __call__(self, config: TrainConfig, progress: bool, on_epoch=None) -> Scores:
        self.configs.append(config)
        folder = open_run(config)
        recall = self.before(config, on_epoch)
        write_scores(folder, scores_of(recall))
        return scores_of(recall)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    found = Trainings()
    monkeypatch.setattr(study_module, "train", found)
    return found


@pytest.fixture
def config(manifest_csv: Path, tmp_path: Path) -> Callable[..., SweepConfig]:
    def make(*vary: str, trials: int = 8, training: dict | None = None, **settings) -> SweepConfig:
        given = {"manifest": str(manifest_csv), "epochs": 4, **(training or {})}
        return SweepConfig(str(tmp_path / "sweep"), vary or ("lr=1e-5..1e-1:log",), given, trials, **settings)

    return make


def test_the_best_trial_is_that_of_the_highest_validation_recall(trainings, config) -> None:
    """Test scores are the opposite: a sweep that read them would choose the worst."""
    found = sweep(config(trials=12), progress=False)
    assert len(found) == len(trainings.configs) == 12
    recalls = [trial.recall for trial in found]
    assert recalls == sorted(recalls, reverse=True)
    best = max(trainings.configs, key=recall_of)
    assert found[0].values == {"lr": best.lr}
    assert found[0].folder == Path(best.out)
    assert (found[0].epoch, found[0].state) == (3, "finished")
    assert abs(math.log10(best.lr / BEST_LR)) < 1  # of four decades: the search finds the better part
    assert "test" not in to_text(found)


def test_a_finished_sweep_is_left_alone_and_a_larger_budget_goes_on(trainings, config) -> None:
    first = sweep(config(trials=3), progress=False)
    assert sweep(config(trials=3), progress=False) == first
    assert len(trainings.configs) == 3
    more = sweep(config(trials=5), progress=False)
    assert len(trainings.configs) == len(more) == 5
    assert {trial.folder.name for trial in more} == {f"trial00{number}" for number in range(5)}
    assert len({trial.values["lr"] for trial in more}) == 5


def test_an_interrupted_trial_goes_on_in_its_folder(trainings, config) -> None:
    sweep(config(trials=1), progress=False)

    def stop(config, on_epoch) -> float:
        raise Interrupted("stopped by SIGTERM", 143)

    trainings.before = stop
    with pytest.raises(Interrupted):
        sweep(config(trials=3), progress=False)
    interrupted = trainings.configs[-1]
    trainings.before = lambda config, on_epoch: recall_of(config)
    found = sweep(config(trials=3), progress=False)
    again = trainings.configs[2]
    assert (again.out, again.lr) == (interrupted.out, interrupted.lr)
    assert [trial.state for trial in found] == ["finished"] * 3
    assert {trial.folder.name for trial in found} == {"trial000", "trial001", "trial002"}


def test_the_time_limit_of_the_sweep_is_passed_on_and_ends_it(trainings, config) -> None:
    def stop(config, on_epoch) -> float:
        raise Interrupted("the time limit of 0.5 minutes is reached", 0)

    trainings.before = stop
    found = sweep(config(trials=3, time_limit=0.5), progress=False)
    assert 0 < trainings.configs[0].time_limit <= 0.5
    assert len(trainings.configs) == 1
    assert [trial.state for trial in found] == ["unfinished"]
    trainings.before = lambda config, on_epoch: recall_of(config)
    assert len(sweep(config(trials=3), progress=False)) == 3


def test_a_failed_trial_says_why_and_counts(trainings, config, caplog) -> None:
    def diverge(config, on_epoch) -> float:
        if len(trainings.configs) == 2:
            raise InputError("the loss is not finite")
        return recall_of(config)

    trainings.before = diverge
    found = sweep(config(trials=3), progress=False)
    assert [trial.state for trial in found] == ["finished", "finished", "failed"]
    assert "trial001 failed: the loss is not finite" in to_text(found)
    assert "trial001 failed" in caplog.text


def test_what_stops_the_first_trial_stops_the_sweep(trainings, config) -> None:
    def fail(config, on_epoch) -> float:
        raise InputError("no weights")

    trainings.before = fail
    with pytest.raises(InputError, match="no weights"):
        sweep(config(), progress=False)
    assert len(trainings.configs) == 1


def test_trials_below_the_median_end_early(trainings, config) -> None:
    def train(config, on_epoch) -> float:
        for epoch in range(1, 5):
            on_epoch(epoch, recall_of(config) * epoch / 4)
        return recall_of(config)

    trainings.before = train
    found = sweep(config(trials=16, prune=True), progress=False)
    pruned = [trial for trial in found if trial.state == "pruned"]
    assert pruned
    finished = [trial for trial in found if trial.state == "finished"]
    assert found == [*finished, *pruned]
    # Optuna's rule: the highest value so far is below the median of the first five trials' at that epoch.
    first = sorted(finished + pruned, key=lambda trial: trial.number)[:5]
    assert all(trial.state == "finished" for trial in first)
    for trial in pruned:
        assert trial.epoch in (2, 3, 4)
        assert trial.recall < 0.9 * trial.epoch / 4


def test_another_sweep_is_not_mixed_into_the_folder(trainings, config) -> None:
    sweep(config(trials=1), progress=False)
    with pytest.raises(InputError, match="holds a sweep with another vary: repeat its settings"):
        sweep(config("lr=1e-5..1e-2:log"), progress=False)
    with pytest.raises(InputError, match="another training"):
        sweep(config(training={"batch_size": 8}), progress=False)
    sweep(config(trials=2, training={"workers": 1}), progress=False)  # changes no result


def test_a_broken_record_is_reported(trainings, config) -> None:
    sweep(config(trials=1), progress=False)
    folder = Path(config().out)
    (folder / "optuna.db").write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match=r"optuna\.db is not the record of a sweep"):
        sweep(config(trials=2), progress=False)


def test_a_missing_manifest_is_found_before_the_first_trial(trainings, config, tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.csv"):
        sweep(config(training={"manifest": str(tmp_path / "none.csv")}), progress=False)
    assert trainings.configs == []


def test_tables(tmp_path: Path) -> None:
    trials = [
        Trial(0, "finished", {"lr": 1.23456e-4, "backbone": "=x"}, 0.8125, 3, tmp_path / "trial000", 1.25),
        Trial(1, "failed", {"lr": 1.0, "backbone": "r\x1b"}, None, None, tmp_path / "trial001", None, "not finite"),
    ]
    assert to_text(trials).splitlines() == [
        "trial     validation recall, %  epoch  backbone  lr        minutes  state",
        "trial000  81.2                  3      =x        0.000123  1.2      finished",
        "trial001  -                     -      r\\x1b        1         -        failed",
        "trial001 failed: not finite",
    ]
    with open(write_table(tmp_path, trials), newline="") as file:
        first, second = csv.DictReader(file)
    assert first == {
        "trial": "trial000", "state": "finished", "validation_recall": "0.8125", "epoch": "3", "backbone": "'=x",
        "lr": "0.000123456", "minutes": "1.25", "reason": "",
    }  # fmt: skip
    assert second["reason"] == "not finite"


def test_the_command_ends_with_one_that_trains_the_best(manifest_csv: Path, tmp_path: Path, one_thread) -> None:
    """Two real trainings of an epoch."""
    out = tmp_path / "sweep"
    arguments = [
        "sweep", "--manifest", str(manifest_csv), "--out", str(out), "--trials", "2", "--vary", "lr=1e-4,1e-2",
        "--backbone", "shufflenet_v2_x0_5", "--weights", "none", "--size", "32", "--epochs", "1", "--alignment", "-",
        "--image-backend", "torchvision", "--workers", "1", "--device", "cpu",
    ]  # fmt: skip
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    with open(out / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    recalls = {row["trial"]: Scores.read(out / row["trial"] / "scores.json").selection.recall for row in rows}
    assert {row["trial"]: float(row["validation_recall"]) for row in rows} == pytest.approx(recalls)
    command = result.output.splitlines()[-1]
    assert shlex.split(command)[:2] == ["fastccsa", "train"]
    best = TrainConfig.read(out / max(recalls, key=lambda name: (recalls[name], name == rows[0]["trial"])))
    assert f"--lr {best.lr}" in command or best.lr == TrainConfig.lr
    assert f"--out {out / 'best'}" in command
    assert not re.search(r"macro|test recall", result.output.partition("The best of")[0].rpartition("minutes")[2])
    result = CliRunner().invoke(main, [*arguments, "--lr", "0.1"])
    assert result.exit_code == 2
    assert "--lr is varied by --vary lr=...: omit one of them" in result.stderr
