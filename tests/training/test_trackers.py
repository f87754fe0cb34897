"""Trackers: MLflow and Weights & Biases where they are installed, and a stand-in with the same calls elsewhere."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from fastccsa.cli import main
from fastccsa.system.errors import InputError
from fastccsa.system.extras import MissingPackageError
from fastccsa.training import TrainConfig, train
from fastccsa.training.scalars import ScalarLog, check_trackers
from fastccsa.training.trackers import IDS_FILE, PROJECT


@pytest.fixture(autouse=True)
def _no_settings_of_trackers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "WANDB_MODE", "MLFLOW_DISABLE_TELEMETRY", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)


def log(folder: Path, tracker: str, done: int = 0, steps: tuple[int, ...] = (5, 9)) -> None:
    """Log two values at some steps, as a run does, and end it."""
    config = TrainConfig(manifest="m.csv", out=str(folder), track=(tracker,), lr=0.25)
    folder.mkdir(exist_ok=True)
    with ScalarLog(folder, config, done) as scalars:
        for step in steps:
            scalars.add("train", {"loss": step / 2, "HAM (a)": 1.0}, step)


class FakeWandb(ModuleType):
    """Keeps the calls of the few functions of Weights & Biases that are used."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[SimpleNamespace] = []

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **about: Any) -> SimpleNamespace:
        run = SimpleNamespace(about=about, id=about["id"], logged=[], metrics={}, exit_code=None)
        run.define_metric = lambda name, step_metric=None: run.metrics.update({name: step_metric})
        run.log = run.logged.append
        run.finish = lambda exit_code: setattr(run, "exit_code", exit_code)
        self.runs.append(run)
        return run


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_weights_and_biases_is_offline_and_goes_on_with_the_same_run(wandb: FakeWandb, tmp_path: Path) -> None:
    folder = tmp_path / "K" / "seed1"
    folder.mkdir(parents=True)
    log(folder, "wandb")
    log(folder, "wandb", done=9, steps=(12,))
    first, second = wandb.runs
    assert first.about["mode"] == "offline"
    assert (first.about["project"], first.about["name"], first.about["dir"]) == (PROJECT, "K/seed1", str(folder))
    assert first.about["config"]["lr"] == 0.25
    assert first.metrics == {"batch": None, "*": "batch"}
    assert first.logged == [
        {"train/loss": 2.5, "train/HAM (a)": 1.0, "batch": 5}, {"train/loss": 4.5, "train/HAM (a)": 1.0, "batch": 9}
    ]  # fmt: skip
    assert first.exit_code == 0
    assert second.id == first.id
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"


def test_weights_and_biases_can_be_told_to_be_online(wandb: FakeWandb, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    log(tmp_path / "run", "wandb")
    assert wandb.runs[0].about["mode"] == "online"


def test_an_interrupted_run_is_not_marked_as_finished(wandb: FakeWandb, tmp_path: Path) -> None:
    config = TrainConfig(manifest="m.csv", out=str(tmp_path), track=("wandb",))
    with pytest.raises(InputError), ScalarLog(tmp_path, config, 0):
        raise InputError("the loss is not finite")
    assert wandb.runs[0].exit_code == 1


def test_a_tracker_that_fails_is_a_warning_and_the_others_go_on(wandb: FakeWandb, tmp_path: Path, caplog) -> None:
    config = TrainConfig(manifest="m.csv", out=str(tmp_path), track=("wandb", "tensorboard"))
    with ScalarLog(tmp_path, config, 0) as scalars:
        wandb.runs[0].log = lambda values: (_ for _ in ()).throw(ConnectionError("no network"))
        scalars.add("train", {"loss": 1.0}, 1)
        scalars.add("train", {"loss": 1.0}, 2)
    assert caplog.text.count("Weights & Biases's log cannot be written (no network)") == 1
    assert list((tmp_path / "tensorboard").iterdir())


def test_names_that_are_broken_are_made_again(wandb: FakeWandb, tmp_path: Path, caplog) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / IDS_FILE).write_text("[1]")
    log(tmp_path / "run", "wandb")
    assert "does not say under which names trackers know the run" in caplog.text
    assert json.loads((tmp_path / "run" / IDS_FILE).read_text()) == {"wandb": wandb.runs[0].id}


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_a_missing_package_is_reported_before_any_work(tracker: str, make_config, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    message = rf"{tracker} is not usable .*pip install 'fastccsa\[{tracker}\]'|{tracker} is not installed: pip install"
    config = make_config(track=(tracker,))
    with pytest.raises(MissingPackageError, match=message):
        train(config, progress=False)
    assert not Path(config.out).exists()


def test_trackers_are_chosen_by_name(make_config) -> None:
    check_trackers(("tensorboard",))
    assert make_config().track == ("tensorboard",)
    with pytest.raises(InputError, match="track is 'neptune'; choose one of 'tensorboard', 'mlflow', 'wandb'"):
        make_config(track=("neptune",))
    config = make_config(track=("mlflow", "wandb"))
    assert TrainConfig.from_json(config.to_json()) == config
    assert config.differences(make_config()) == []  # a resumed run may be tracked elsewhere
    result = CliRunner().invoke(main, ["train", "--manifest", "m.csv", "--out", "x", "--track", "neptune"])
    assert "'neptune' is not one of 'tensorboard', 'mlflow', 'wandb'" in result.stderr


def test_a_run_logs_to_each_tracker_it_names(make_config, wandb: FakeWandb) -> None:
    config = make_config(alignment="-", epochs=1, track=("wandb",))
    train(config, progress=False)
    logged = [name for values in wandb.runs[0].logged for name in values]
    assert {"train/loss", "train/lr", "validation_recall/average", "validation_recall/HAM"} <= set(logged)
    assert not (Path(config.out) / "tensorboard").exists()


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("mlflow", "sqlalchemy", "alembic")), reason="the extra mlflow is missing"
)
def test_mlflow_keeps_the_values_in_the_run_folder(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    folder = tmp_path / "run"
    log(folder, "mlflow")
    log(folder, "mlflow", done=9, steps=(12,))
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name(PROJECT)
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status, run.data.params["lr"]) == ("run", "FINISHED", "0.25")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((each.step, each.value) for each in history) == [(5, 2.5), (9, 4.5), (12, 6.0)]
    assert client.get_metric_history(run.info.run_id, "train/HAM _a_")


@pytest.mark.skipif(find_spec("wandb") is None, reason="the extra wandb is missing")
def test_the_real_weights_and_biases_writes_into_the_run_folder(tmp_path: Path) -> None:
    log(tmp_path / "run", "wandb")
    name = json.loads((tmp_path / "run" / IDS_FILE).read_text())["wandb"]
    (folder,) = (tmp_path / "run" / "wandb").glob(f"offline-run-*-{name}")
    assert (folder / f"run-{name}.wandb").stat().st_size > 0
