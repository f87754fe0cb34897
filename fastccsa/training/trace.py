"""A profiler trace of a few steps of a run, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

import logging
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.progress import Say

if TYPE_CHECKING:
    from typing_extensions import Self

TRACE_FILE = "trace.json"
# Steps that are skipped (the first ones differ from the rest), that warm up the profiler, and that are recorded.
WAIT, WARM_UP, KEPT = 4, 2, 4

logger = logging.getLogger("fastccsa.training")


class StepTrace:
    """Profiles a few of the first steps of this process, and writes ``trace.json`` into the run folder.

    Args:
        folder: the run folder; None profiles nothing.
        say: prints where the trace is.
    """

    def __init__(self, folder: Path | None, say: Say) -> None:
        self._folder, self._say = folder, say
        self._profiler: profile | None = None

    def __enter__(self) -> Self:
        if self._folder is not None:
            activities = [ProfilerActivity.CPU]
            if torch.cuda.is_available():
                activities.append(ProfilerActivity.CUDA)
            steps = schedule(wait=WAIT, warmup=WARM_UP, active=KEPT, repeat=1)
            self._profiler = profile(activities=activities, schedule=steps, on_trace_ready=self._write)
            self._profiler.start()
        return self

    def step(self) -> None:
        """Tell the profiler that a step has ended."""
        if self._profiler is not None:
            self._profiler.step()
            if self._profiler.step_num == WAIT + WARM_UP + KEPT:
                self._end()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._profiler is not None:
            logger.warning("%d steps are too few for a complete trace", self._profiler.step_num)
            self._end()

    def _end(self) -> None:
        if self._profiler is not None:
            self._profiler.stop()
            self._profiler = None

    def _write(self, profiler: profile) -> None:
        assert self._folder is not None
        file = self._folder / TRACE_FILE
        try:
            with write_atomically(file) as temporary:
                profiler.export_chrome_trace(str(temporary))
        except (OSError, RuntimeError, InputError) as error:
            logger.warning("the trace cannot be written (%s); the run continues without it", error)
            return
        self._say(f"a trace of {KEPT} steps is in {file}: open it in ui.perfetto.dev or chrome://tracing")
