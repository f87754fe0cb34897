"""Times of several calls, measured in turns: what disturbs the machine disturbs all of them alike."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter

__all__ = ["Times", "interleaved"]

TURN_SECONDS = 2e-3  # a turn is as many calls as fill this, so that the clock's own cost vanishes
MOST_CALLS = 1000
FEWEST_ROUNDS = 3


@dataclass
class Times:
    """What one call took.

    Attributes:
        calls: calls in a turn.
        seconds: the mean time of a call in each turn, in order.
    """

    calls: int = 1
    seconds: list[float] = field(default_factory=list)


def _turn(call: Callable[[], object], calls: int, synchronize: Callable[[], None]) -> float:
    """The mean time of `calls` calls; a GPU's work is waited for."""
    synchronize()
    start = perf_counter()
    for _ in range(calls):
        call()
    synchronize()
    return (perf_counter() - start) / calls


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    seconds: float,
    synchronize: Callable[[], None] = lambda: None,
) -> dict[str, Times]:
    """Time each call once a round; every round begins with another one of them.

    Args:
        calls: what to time, by name; each has been called before, so that nothing is compiled here.
        rounds: how many rounds at most.
        seconds: after this long no other round begins; at least three are made.
        synchronize: waits until the device has done its work.
    """
    names = list(calls)
    times = {}
    for name, call in calls.items():
        once = _turn(call, 1, synchronize)
        if once < TURN_SECONDS:  # the first of short calls may be slow
            once = min(once, _turn(call, 1, synchronize))
        times[name] = Times(calls=max(1, min(MOST_CALLS, math.ceil(TURN_SECONDS / max(once, 1e-9)))))
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        end = perf_counter() + seconds
        for number in range(rounds):
            if number >= FEWEST_ROUNDS and perf_counter() >= end:
                break
            first = number % len(names)
            for name in names[first:] + names[:first]:
                times[name].seconds.append(_turn(calls[name], times[name].calls, synchronize))
    finally:
        if collecting:
            gc.enable()
    return times
