"""Requests to stop: SIGTERM, Ctrl-C and the time limit are heard at once and granted at the end of a step."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from torch.distributed import is_torchelastic_launched

from fastccsa.system.errors import Interrupted

if TYPE_CHECKING:
    from typing_extensions import Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_NONE, _TIME_IS_UP = 0, 1  # beside the signals' numbers, none of which is 1


class StopRequests:
    """Listens for requests to stop while it is entered; whoever works looks at `requested` between two steps.

    A second signal of the same kind ends the process at once, but not under torchrun: it hands on what it is sent
    itself, and a scheduler may have sent that to its processes too. Signals are heard in the main thread only, as
    Python has it; in another thread the time limit alone counts.

    Args:
        minutes: time limit from now on; 0 for none.
    """

    def __init__(self, minutes: float = 0.0) -> None:
        self._limit = minutes
        self._deadline = time.monotonic() + 60 * minutes if minutes else None
        self._signal = _NONE
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._heard) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self) -> int:
        """Return what asked to stop, for `interrupted`; 0 when nothing did."""
        if self._signal == _NONE and self._deadline is not None and time.monotonic() >= self._deadline:
            return _TIME_IS_UP
        return self._signal

    def interrupted(self, request: int, kept: str) -> Interrupted:
        """Make the exception that ends the work; ``kept`` says what was saved."""
        if request == _TIME_IS_UP:
            return Interrupted(f"the time limit of {self._limit:g} minutes is reached: {kept}", 0)
        return Interrupted(f"stopped by {signal.Signals(request).name}: {kept}", 128 + request)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        under_torchrun = is_torchelastic_launched()  # which sees to it that processes end: after 30 seconds, by SIGKILL
        signal.signal(number, signal.SIG_IGN if under_torchrun else signal.SIG_DFL)
        hint = "" if under_torchrun else "; once more ends at once"
        # Not print, which the signal may have interrupted.
        os.write(2, f"\n{signal.Signals(number).name}: finishing the step and saving{hint}\n".encode())
