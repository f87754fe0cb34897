from __future__ import annotations

import threading

import pytest

from fastccsa.runs import background as background_module
from fastccsa.runs.background import FIRST_SECONDS, Background


@pytest.fixture
def clock(monkeypatch):
    """A clock that only tests move; work of the other thread takes ``clock.work`` seconds of a processor."""

    class Clock:
        now, work, used = 100.0, 0.0, 0.0

        def perf_counter(self) -> float:
            return self.now

        def thread_time(self) -> float:
            self.used += self.work
            return self.used

    clock = Clock()
    monkeypatch.setattr(background_module, "time", clock)
    return clock


def test_work_is_due_when_the_time_since_the_last_pays_for_it(clock) -> None:
    with Background(0.02) as background:
        assert not background.is_due()
        assert background.is_due(first=True)
        clock.now += FIRST_SECONDS
        assert background.is_due()
        clock.work = 0.3
        background.submit(lambda: None, spent=0.1)
        background.wait()
        assert not background.is_due(first=True)
        clock.now += 19.8  # after 0.1 seconds that the caller spent: 0.4 seconds are 2 % of 20
        assert not background.is_due()
        clock.now += 0.2
        assert background.is_due()
        clock.work = 5.0
        background.submit_minor(lambda: None)
        background.wait()
        assert background.is_due()


def test_without_a_share_nothing_is_due(clock) -> None:
    with Background(0.0) as background:
        clock.now += 1e6
        assert not background.is_due(first=True)


def test_one_piece_of_work_is_in_progress_at_a_time_and_the_end_waits_for_it() -> None:
    done, may_end = [], threading.Event()
    with Background(1.0) as background:
        background.submit(lambda: (may_end.wait(60), done.append(1)))
        assert background.is_busy
        assert not background.is_due(first=True)
        threading.Timer(0.05, may_end.set).start()
        background.submit(lambda: done.append(2))
        assert done[0] == 1
    assert done == [1, 2]


@pytest.mark.parametrize("call", ["check", "wait", "is_due", "submit"])
def test_an_error_reaches_the_next_call_once(call) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    with Background(1.0) as background:
        background.submit(fail)
        while background.is_busy:
            pass
        with pytest.raises(OSError, match="No space left"):
            background.submit(lambda: None) if call == "submit" else getattr(background, call)()
        background.wait()


def test_an_error_at_the_end_is_raised_or_logged_beside_that_of_the_run(caplog) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"), Background(1.0) as background:
        background.submit(fail)
    with pytest.raises(ZeroDivisionError), Background(1.0) as background:
        (background.submit(fail), 1 // 0)
    assert "No space left on device" in caplog.text
