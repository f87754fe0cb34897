"""Requests to stop: SIGTERM, Ctrl-C and the time limit are noticed at once and take effect at the end of a step."""

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

_NONE, _TIME_IS_UP = 0, 1  # no signal of SIGNALS has these numbers


class StopRequests:
    """Collects requests to stop while the context is active; the training loop checks `requested` between two steps.

    A second signal of the same kind ends the process at once. Under torchrun it is ignored, because torchrun passes on
    the signals it receives, and a scheduler may have sent the same signal to the processes directly. Python delivers
    signals to the main thread only; in any other thread only the time limit works.

    Args:
        minutes: time limit, starting now; 0 for none.
    """

    def __init__(self, minutes: float = 0.0) -> None:
        self._limit = minutes
        self._deadline = time.monotonic() + 60 * minutes if minutes else None
        self._signal = _NONE
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self) -> int:
        """Return the number of the request to stop, for `interrupted`; 0 if there is none."""
        if self._signal == _NONE and self._deadline is not None and time.monotonic() >= self._deadline:
            return _TIME_IS_UP
        return self._signal

    def interrupted(self, request: int, kept: str) -> Interrupted:
        """Make the exception that ends the run; ``kept`` says what was saved."""
        if request == _TIME_IS_UP:
            return Interrupted(f"the time limit of {self._limit:g} minutes is reached: {kept}", 0)
        return Interrupted(f"stopped by {signal.Signals(request).name}: {kept}", 128 + request)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        under_torchrun = is_torchelastic_launched()  # which kills processes that have not ended after 30 seconds
        signal.signal(number, signal.SIG_IGN if under_torchrun else signal.SIG_DFL)
        hint = "" if under_torchrun else "; repeat it to stop at once"
        # Not print: the signal may have interrupted one.
        os.write(2, f"\n{signal.Signals(number).name}: finishing the step and saving{hint}\n".encode())
