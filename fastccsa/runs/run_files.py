"""The files of a run that change while it trains: checkpoint, selected model and metrics, written in the background."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fastccsa.models import Classifier, ModelCard
from fastccsa.models.card import save_weights
from fastccsa.runs.background import Background
from fastccsa.runs.checkpoint import TrainState, checkpoint_content, write_checkpoint
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import saving, write_metrics
from fastccsa.runs.snapshot import Snapshot

Kept = tuple[Snapshot, ModelCard]


class RunFiles:
    """Takes snapshots of a run, and lets another thread write them into the run folder, one at a time.

    The files belong together whenever the process ends: the checkpoint is written last, and a run that resumes from the
    one before it writes the others again. A model is therefore kept in memory until the next checkpoint is written.

    Args:
        folder: the run folder.
        config: the run. With ``checkpoint_every``, checkpoints are due at those batches and at the ends of epochs;
            otherwise whenever the time since the last one pays for them.
        card: describes the model.
        background: does the writing.
    """

    def __init__(self, folder: Path, config: TrainConfig, card: ModelCard, background: Background) -> None:
        self._folder, self._config, self._card, self._background = folder, config, card, background
        self._kept: Kept | None = None
        self._spent = 0.0  # seconds on keeping models since the last checkpoint
        # Set by the thread that writes:
        self._written: Kept | None = None
        self._recorded = 0  # epochs of which the metrics are on the disk

    def is_due(self, batches: int) -> bool:
        """Return whether a checkpoint is due within an epoch, ``batches`` after the last one that was requested."""
        if every := self._config.checkpoint_every:
            self._background.check()
            return batches >= every
        return self._background.is_due()

    def is_due_after_epoch(self) -> bool:
        """Return whether a checkpoint is due at the end of an epoch."""
        return bool(self._config.checkpoint_every) or self._background.is_due(first=True)

    def keep_model(self, model: Classifier) -> None:
        """Keep a copy of the selected epoch's model, which the next checkpoint is written with."""
        start = time.perf_counter()
        self._kept = Snapshot(model.state_dict()), replace(self._card, layers=model.layers)
        self._spent += time.perf_counter() - start

    def save(self, state: TrainState, required: bool = True, spent: float = 0.0) -> None:
        """Start writing everything: the kept model, the metrics, and the checkpoint of ``state``.

        Args:
            state: the state of training.
            required: whether a failed write is the error of the run, and not a warning.
            spent: seconds that the caller spent on preparing it, which are part of its cost.
        """
        self._background.wait()  # so that only one copy of the state exists
        start = time.perf_counter()
        checkpoint = Snapshot(checkpoint_content(state, self._config.to_json()))
        history, kept = list(state.history), self._unwritten()  # records do not change any more

        def write() -> None:
            with saving(self._folder, required):
                if kept is not None:
                    save_weights(self._folder, _weights(kept[0]), kept[1])
                if len(history) != self._recorded:
                    self._write_metrics(history)
                write_checkpoint(self._folder, checkpoint.on_host())
                self._written = kept

        spent += self._spent + time.perf_counter() - start
        self._spent = 0.0
        self._background.submit(write, spent)

    def save_metrics(self, history: list[dict[str, Any]]) -> None:
        """Start writing the metrics, unless something else is being written: they are then part of the next save."""
        if not self._background.is_busy:
            self._background.check()
            copied = list(history)
            self._background.submit_minor(lambda: self._write_metrics_only(copied))

    def wait(self) -> None:
        """Wait until everything is written.

        Raises:
            InputError: something that was required could not be written.
        """
        self._background.wait()

    def _unwritten(self) -> Kept | None:
        if self._kept is not None and self._written is self._kept:
            self._kept = self._written = None
        return self._kept

    def _write_metrics(self, history: list[dict[str, Any]]) -> None:
        write_metrics(self._folder, history)
        self._recorded = len(history)

    def _write_metrics_only(self, history: list[dict[str, Any]]) -> None:
        with saving(self._folder):
            self._write_metrics(history)


def _weights(model: Snapshot) -> Mapping[str, Tensor]:
    weights: Mapping[str, Tensor] = model.on_host()
    return weights
