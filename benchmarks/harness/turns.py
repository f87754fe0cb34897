"""Contestants take turns, so that disturbances of the machine affect all of them equally."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter

TURN_SECONDS = 2e-3  # a turn repeats a short call for this long, so that the time of reading the clock is negligible
MOST_CALLS = 1000
FEWEST_ROUNDS = 3

Call = Callable[[], object]
Turn = Callable[[], "float | None"]  # returns the seconds of one call, or None if it could not run
Around = Callable[[Call], AbstractContextManager[object]]


class Calls:
    """A turn that repeats a call, and returns its mean time.

    The call must have been made before, so that nothing is compiled here. ``synchronize`` waits until the device has
    finished. ``around`` makes the context that a turn runs in; entering and leaving it is not timed.
    """

    def __init__(self, call: Call, synchronize: Call = lambda: None, around: Around = nullcontext) -> None:
        self.call, self.synchronize, self.around, self.calls = call, synchronize, around, 1
        once = self()
        if once < TURN_SECONDS:  # the first of several short calls may be slow
            once = min(once, self())
        self.calls = max(1, min(MOST_CALLS, math.ceil(TURN_SECONDS / max(once, 1e-9))))

    def __call__(self) -> float:
        call, collecting = self.call, gc.isenabled()
        with self.around(call):
            gc.disable()
            try:
                self.synchronize()
                start = perf_counter()
                for _ in range(self.calls):
                    call()
                self.synchronize()
                return (perf_counter() - start) / self.calls
            finally:
                if collecting:
                    gc.enable()


def interleave(turns: Sequence[Turn], rounds: int, seconds: float) -> list[list[float]]:
    """Give each contestant one turn per round, and begin each round with a different contestant.

    After ``seconds``, no round begins except for the first three. Returns the times of each contestant.
    """
    times: list[list[float]] = [[] for _ in turns]
    gc.collect()
    end = perf_counter() + seconds
    for number in range(rounds if turns else 0):
        if number >= FEWEST_ROUNDS and perf_counter() >= end:
            break
        for place in range(len(turns)):
            contestant = (number + place) % len(turns)
            taken = turns[contestant]()
            if taken is not None:
                times[contestant].append(taken)
    return times
