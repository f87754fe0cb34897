"""The scalars of a run on their way to the trackers that it names: TensorBoard, MLflow, Weights & Biases."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from fastccsa.runs.config import TrainConfig
from fastccsa.runs.records import run_name
from fastccsa.system.extras import require
from fastccsa.training.trackers import MLflowTracker, RunFacts, Tracker, WandbTracker

if TYPE_CHECKING:
    from typing_extensions import Self

TENSORBOARD_FOLDER = "tensorboard"
_PACKAGES = {"mlflow": ("mlflow", "sqlalchemy", "alembic"), "wandb": ("wandb",)}
_NAMES = {"tensorboard": "TensorBoard", "mlflow": "MLflow", "wandb": "Weights & Biases"}

logger = logging.getLogger("fastccsa.training")


class TensorBoardTracker:
    """Writes scalars for TensorBoard into the run folder.

    Args:
        facts: the run; what was logged after the batches that it has done is dropped.
    """

    def __init__(self, facts: RunFacts) -> None:
        self._writer = SummaryWriter(str(facts.folder / TENSORBOARD_FOLDER), purge_step=facts.done + 1)

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Write ``values`` at the run's batch number ``step``."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self, finished: bool) -> None:
        """Write what is still buffered."""
        self._writer.close()


_TRACKERS: Mapping[str, type[Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "mlflow": MLflowTracker,
    "wandb": WandbTracker,
}


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of the trackers are installed.

    Raises:
        MissingPackageError: one is not; the message has the pip command.
    """
    for name in names:
        require(*_PACKAGES.get(name, ()))


class ScalarLog:
    """Logs scalars to trackers. A tracker that fails is only a warning, since the run does not depend on it.

    Args:
        folder: the run folder; None logs nothing, for the other processes of a run.
        config: the run, whose ``track`` names the trackers.
        done: number of batches that the run has already done.
    """

    def __init__(self, folder: Path | None, config: TrainConfig, done: int) -> None:
        self._trackers: dict[str, Tracker] = {}
        if folder is None:
            return
        facts = RunFacts(folder, run_name(folder), asdict(config), done)
        for name in dict.fromkeys(config.track):
            try:
                self._trackers[name] = _TRACKERS[name](facts)
            # Each library raises its own errors, also for networks and databases.
            except Exception as error:
                self._warn(name, "cannot be written", error)

    def add(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Log ``values`` under ``group``, at the run's batch number ``step``."""
        named = {f"{group}/{name}": float(value) for name, value in values.items()}
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.add(named, step)
            except Exception as error:
                self._warn(name, "cannot be written", error)
                del self._trackers[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for name, tracker in self._trackers.items():
            try:
                tracker.close(finished=kind is None)
            except Exception as failure:
                self._warn(name, "is incomplete", failure)

    @staticmethod
    def _warn(name: str, what: str, error: Exception) -> None:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).split("\n")[0] or type(error).__name__
        logger.warning("%s's log %s (%s); the run continues without it", _NAMES[name], what, reason)
