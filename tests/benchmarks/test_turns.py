"""Contestants take fair turns, and the times are those that the results report."""

from __future__ import annotations

import itertools
from contextlib import contextmanager

import pytest

from benchmarks.harness import turns
from benchmarks.harness.turns import TURN_SECONDS, Calls, interleave


class Clock:
    """A clock that advances only when a call tells it to."""

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
    monkeypatch.setattr(turns, "perf_counter", lambda: clock.now)
    return clock


def test_every_round_has_each_once_and_another_begins(clock: Clock) -> None:
    calls = [Calls(clock.call(name, 1.0)) for name in "abc"]
    interleave(calls, rounds=4, seconds=1000)
    after_calibration = clock.order[3:]
    assert "".join(after_calibration) == "abcbcacababc"


def test_times_are_those_of_one_call(clock: Clock) -> None:
    slow, quick = Calls(clock.call("slow", 0.5)), Calls(clock.call("quick", 0.3 * TURN_SECONDS))
    assert (slow.calls, quick.calls) == (1, 4)
    times = interleave([slow, quick], rounds=3, seconds=1000)
    assert times == [pytest.approx([0.5] * 3), pytest.approx([0.3 * TURN_SECONDS] * 3)]


def test_a_slow_first_call_does_not_decide_the_length_of_a_turn(clock: Clock) -> None:
    first = iter([TURN_SECONDS / 2])

    def call() -> None:
        clock.now += next(first, 0.03 * TURN_SECONDS)

    assert Calls(call).calls == 34


def test_the_budget_ends_the_rounds_but_three_are_made(clock: Clock) -> None:
    assert len(interleave([Calls(clock.call("a", 1.0))], rounds=30, seconds=5)[0]) == 5
    assert len(interleave([Calls(clock.call("a", 9.0))], rounds=30, seconds=5)[0]) == 3


def test_the_device_is_waited_for_within_the_time(clock: Clock) -> None:
    pending = []

    def launch() -> None:
        pending.append(1.0)

    def wait() -> None:
        clock.now += sum(pending)
        pending.clear()

    assert interleave([Calls(launch, wait)], 3, 1000) == [pytest.approx([1.0] * 3)]


def test_what_is_around_a_turn_is_not_timed(clock: Clock) -> None:
    @contextmanager
    def around(call):
        clock.now += 100
        call()
        yield
        clock.now += 100

    turn = Calls(clock.call("a", 1.0), around=around)
    clock.order.clear()
    assert turn() == 1.0
    assert clock.order == ["a", "a"]  # once by the context


def test_a_turn_that_could_not_run_has_no_time() -> None:
    assert interleave([lambda: None, lambda: 2.0], rounds=3, seconds=0) == [[], [2.0] * 3]
