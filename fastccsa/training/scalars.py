"""The scalars of a run in TensorBoard's format."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

if TYPE_CHECKING:
    from typing_extensions import Self

TENSORBOARD_FOLDER = "tensorboard"

logger = logging.getLogger("fastccsa.training")


class ScalarLog:
    """Logs scalars to TensorBoard. A failed write is only a warning, since the run does not depend on the log.

    Args:
        folder: the run folder; None writes nothing.
        done: number of batches that the run has already done; anything logged after them is dropped.
    """

    def __init__(self, folder: Path | None, done: int) -> None:
        self._writer: SummaryWriter | None = None
        if folder is None:
            return
        try:
            self._writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=done + 1)
        except OSError as error:
            logger.warning("TensorBoard's log cannot be written (%s); the run continues without it", error.strerror)

    def add(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Write ``values`` under ``group``, at the run's batch number ``step``."""
        if self._writer is None:
            return
        try:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)
        except OSError as error:
            logger.warning("TensorBoard's log cannot be written (%s); the run continues without it", error.strerror)
            self._writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as failure:
                logger.warning("TensorBoard's log is incomplete (%s)", failure.strerror)
