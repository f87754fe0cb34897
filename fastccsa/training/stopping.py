"""Requests to stop: signals and the time limit are noticed at once and take effect at the end of a step."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from torch.distributed import is_torchelastic_launched

from fastccsa.system.errors import Interrupted

if TYPE_CHECKING:
    from typing_extensions import Self

# SIGINT is last, so that an interrupt while handlers are put back leaves no other one behind.
SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)

_NONE, _TIME_IS_UP = 0, 1000  # no signal has these numbers


class StopRequests:
    """Collects requests to stop while the context is active; the training loop checks `requested` between two steps.

    SIGTERM, SIGHUP (the terminal or the connection was closed) and SIGINT (Ctrl-C, or an interrupt in a notebook) are
    requests. A second signal of the same kind takes its usual effect at once: SIGINT raises ``KeyboardInterrupt``,
    which a notebook survives, and the others end the process. Under torchrun it is ignored, because torchrun passes on
    the signals it receives, and a scheduler may have sent the same signal to the processes directly.

    SIGHUP stays ignored where it is ignored, as by ``nohup``. Python delivers signals to the main thread only; in any
    other thread only the time limit works. At the end of the context the previous handlers are back.

    Args:
        minutes: time limit, starting now; 0 for none.
    """

    def __init__(self, minutes: float = 0.0) -> None:
        self._limit = minutes
        self._deadline = time.monotonic() + 60 * minutes if minutes else None
        self._request = _NONE
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            try:
                self._listen()
            except BaseException:  # an interrupt before all handlers are set
                self._put_back()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._put_back()

    def requested(self) -> int:
        """Return the number of the request to stop, for `interrupted`; 0 if there is none."""
        if self._request == _NONE and self._deadline is not None and time.monotonic() >= self._deadline:
            return _TIME_IS_UP
        return self._request

    def interrupted(self, request: int, kept: str) -> Interrupted:
        """Make the exception that ends the run; ``kept`` says what was saved."""
        if request == _TIME_IS_UP:
            return Interrupted(f"the time limit of {self._limit:g} minutes is reached: {kept}", 0)
        return Interrupted(f"stopped by {signal.Signals(request).name}: {kept}", 128 + request)

    def _listen(self) -> None:
        for number in SIGNALS:
            before = signal.getsignal(number)
            # None: a handler that is not Python's, which Python could not put back.
            if before is None or (number == signal.SIGHUP and before == signal.SIG_IGN):
                continue
            self._before[number] = before
            signal.signal(number, self._receive)

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._request = number
        under_torchrun = is_torchelastic_launched()  # which kills processes that have not ended after 30 seconds
        signal.signal(number, signal.SIG_IGN if under_torchrun else self._usual(number))
        hint = "" if under_torchrun else "; repeat it to stop at once"
        # Not print: the signal may have interrupted one. After SIGHUP there may be no terminal left to write to.
        with suppress(OSError):
            os.write(2, f"\n{signal.Signals(number).name}: finishing the step and saving{hint}\n".encode())

    def _usual(self, number: int) -> Callable[[int, FrameType | None], Any] | signal.Handlers:
        """Return the handler of a second signal: the previous one, or the default where the signal was ignored."""
        before: Callable[[int, FrameType | None], Any] | signal.Handlers = self._before[number]
        if callable(before):
            return before
        return signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
