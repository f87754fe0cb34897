"""Contestants take turns, fairly, and the clock is read as the results say."""

from __future__ import annotations

import itertools

import pytest

from fastccsa.benchmarking import timing
from fastccsa.benchmarking.timing import TURN_SECONDS, interleaved


class Clock:
    """Time passes when a call says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def call(self, name: str, *durations: float):
        lasting = itertools.cycle(durations)

        def run() -> None:
            self.order.append(name)
            self.now += next(lasting)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", lambda: clock.now)
    return clock


def test_every_round_has_each_once_and_another_begins(clock: Clock) -> None:
    calls = {name: clock.call(name, 1.0) for name in "abc"}
    interleaved(calls, rounds=4, seconds=1000)
    after_calibration = clock.order[3:]
    assert "".join(after_calibration) == "abcbcacababc"


def test_times_are_those_of_one_call(clock: Clock) -> None:
    calls = {"slow": clock.call("slow", 0.5), "quick": clock.call("quick", 0.3 * TURN_SECONDS)}
    times = interleaved(calls, rounds=3, seconds=1000)
    assert (times["slow"].calls, times["quick"].calls) == (1, 4)
    assert times["slow"].seconds == pytest.approx([0.5] * 3)
    assert times["quick"].seconds == pytest.approx([0.3 * TURN_SECONDS] * 3)


def test_a_slow_first_call_does_not_decide_the_length_of_a_turn(clock: Clock) -> None:
    first = iter([TURN_SECONDS / 2])

    def call() -> None:
        clock.now += next(first, 0.03 * TURN_SECONDS)

    assert interleaved({"a": call}, rounds=3, seconds=1000)["a"].calls == 34


def test_the_budget_ends_the_rounds_but_three_are_made(clock: Clock) -> None:
    assert len(interleaved({"a": clock.call("a", 1.0)}, rounds=30, seconds=5)["a"].seconds) == 5
    assert len(interleaved({"a": clock.call("a", 9.0)}, rounds=30, seconds=5)["a"].seconds) == 3


def test_the_device_is_waited_for_within_the_time(clock: Clock) -> None:
    pending = []

    def launch() -> None:
        pending.append(1.0)

    def wait() -> None:
        clock.now += sum(pending)
        pending.clear()

    assert interleaved({"a": launch}, 3, 1000, wait)["a"].seconds == pytest.approx([1.0] * 3)
