"""Work that another thread does while a run trains, within a share of the run's time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

# Before any work has shown what it costs, it is due after this time.
FIRST_SECONDS = 30.0

logger = logging.getLogger("fastccsa.runs")


class Background:
    """Does one piece of work at a time in another thread.

    An error of the work is raised by the next call of `check`, `submit` or `wait`. At the end of the context the work
    in progress is finished.

    Args:
        share: share of the time that the work may cost, from 0 (none is due) to 1. The cost of a piece of work is the
            time that the caller spent on it, and the processor time of the thread, which the caller may need too.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastccsa-writer")
        self._work: Future[float] | None = None
        self._spent: float | None = None  # by the caller on the work in progress; None for minor work
        self._cost: float | None = None  # of the last piece of work
        self._since = time.perf_counter()  # when it began

    @property
    def is_busy(self) -> bool:
        """Whether work is in progress."""
        return self._work is not None and not self._work.done()

    def is_due(self, first: bool = False) -> bool:
        """Return whether the time since the last piece of work pays for another one like it.

        Args:
            first: the answer if there has not been any within the first `FIRST_SECONDS`.
        """
        self.check()
        if self._work is not None or not self._share:
            return False
        passed = time.perf_counter() - self._since
        if self._cost is None:
            return first or passed >= FIRST_SECONDS
        return passed >= self._cost / self._share

    def submit(self, work: Callable[[], None], spent: float = 0.0) -> None:
        """Start ``work``, after that in progress; ``spent`` are the seconds that the caller spent on preparing it."""
        self.submit_minor(work)
        self._since, self._spent = time.perf_counter() - spent, spent

    def submit_minor(self, work: Callable[[], None]) -> None:
        """Start work whose cost is negligible, after that in progress; `is_due` ignores it."""
        self.wait()
        self._spent = None
        self._work = self._thread.submit(_clocked, work)

    def check(self) -> None:
        """Raise the error of the work if it has failed since; this does not wait."""
        if self._work is not None and self._work.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the work in progress, and raise its error."""
        if self._work is None:
            return
        wait([self._work])  # an interrupt leaves the work in progress
        work, self._work = self._work, None
        cost = work.result()
        if self._spent is not None:
            self._cost = self._spent + cost

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if kind is None:
                raise
            logger.error("%s", failure)  # the run ends with its own error
        finally:
            self._thread.shutdown()


def _clocked(work: Callable[[], None]) -> float:
    """Do the work, and return its processor time in seconds."""
    start = time.thread_time()
    work()
    return time.thread_time() - start
