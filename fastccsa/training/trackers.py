"""Trackers of other projects: MLflow and Weights & Biases. Without settings of theirs, both stay on this machine.

MLflow writes a database into the run folder, unless MLFLOW_TRACKING_URI names another place. Weights & Biases is
offline, unless WANDB_MODE says otherwise. Neither reports its own use, unless their variables ask for it.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.schema import build

IDS_FILE = "tracking.json"
PROJECT = "fastccsa"
DATABASE = "mlflow.db"
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
_LONGEST = 500  # characters of a parameter in MLflow

logger = logging.getLogger("fastccsa.training")


@dataclass(frozen=True)
class RunFacts:
    """What trackers know about a run.

    Attributes:
        folder, name: its folder and name.
        settings: its configuration.
        done: number of batches that it has already done, if it resumes.
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    done: int


class Tracker(Protocol):
    """Where scalars go."""

    def __init__(self, facts: RunFacts) -> None: ...

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Log ``values`` at the run's batch number ``step``."""

    def close(self, finished: bool) -> None:
        """Write what is still buffered; ``finished`` says whether the training has ended and not been interrupted."""


class MLflowTracker:
    """Logs to MLflow, as a run of the experiment `PROJECT`; a resumed run goes on with the same one."""

    def __init__(self, facts: RunFacts) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{facts.folder.resolve() / DATABASE}"
        self._client = MlflowClient(tracking_uri=uri)
        known = _read_ids(facts.folder).get("mlflow")
        if known is not None and _exists(self._client, known):
            self._run: str = known
            self._client.update_run(known, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(PROJECT)
        number = self._client.create_experiment(PROJECT) if experiment is None else experiment.experiment_id
        self._run = self._client.create_run(number, run_name=facts.name).info.run_id
        settings = [Param(name, str(value)[:_LONGEST]) for name, value in facts.settings.items()]
        self._client.log_batch(self._run, params=settings)
        _write_id(facts.folder, "mlflow", self._run)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Log ``values`` at the run's batch number ``step``."""
        now = int(1000 * time.time())
        metrics = [self._metric(_NOT_IN_NAMES.sub("_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def close(self, finished: bool) -> None:
        """Set the status of the run."""
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


class WandbTracker:
    """Logs to Weights & Biases, over the metric ``batch``; a resumed run goes on with the same one."""

    def __init__(self, facts: RunFacts) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        known = _read_ids(facts.folder).get("wandb")
        self._run = wandb.init(
            project=PROJECT,
            name=facts.name,
            id=known or secrets.token_hex(8),
            resume="allow",
            dir=str(facts.folder),
            mode=os.environ.get("WANDB_MODE") or "offline",
            config=dict(facts.settings),
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("batch")
        self._run.define_metric("*", step_metric="batch")
        if known is None:
            _write_id(facts.folder, "wandb", self._run.id)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Log ``values`` at the run's batch number ``step``."""
        self._run.log({**values, "batch": step})

    def close(self, finished: bool) -> None:
        """Write what is still buffered, and set the status of the run."""
        self._run.finish(exit_code=0 if finished else 1)


def _exists(client: Any, run: str) -> bool:
    """Return whether MLflow still has a run, which may be in a store that is no longer used."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run)
    except MlflowException:
        return False
    return True


def _read_ids(folder: Path) -> dict[str, str]:
    """Return the names under which trackers know the run, by tracker; none if the file is broken."""
    try:
        with reported(folder / IDS_FILE, "does not say under which names trackers know the run", "it is made again"):
            return build(dict[str, str], load_json(read_bytes(folder / IDS_FILE)))
    except FileNotFoundError:
        return {}
    except InputError as error:
        logger.warning("%s", error)
        return {}


def _write_id(folder: Path, tracker: str, name: str) -> None:
    ids = {**_read_ids(folder), tracker: name}
    with write_atomically(folder / IDS_FILE) as file:
        file.write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")
