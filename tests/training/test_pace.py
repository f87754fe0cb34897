"""How far the host runs ahead of a GPU, with a simulated clock and GPU; and what a run does with it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastccsa.runs.run_files import RunFiles
from fastccsa.system.errors import Interrupted
from fastccsa.training import loop as loop_module
from fastccsa.training import pace as pace_module
from fastccsa.training import saving, train
from fastccsa.training.pace import AHEAD_SECONDS, LEAST, Pace


class Machine:
    """A clock of the host, and a GPU that does one piece of work after another."""

    def __init__(self) -> None:
        self.now, self.end, self.idle, self.begun = 0.0, 0.0, 0.0, False

    def queue(self, host: float, gpu: float) -> None:
        """Queue work of ``gpu`` seconds, which takes the host ``host`` seconds."""
        self.now += host
        if self.begun:
            self.idle += max(0.0, self.now - self.end)
        self.begun = True
        self.end = max(self.now, self.end) + gpu

    def record_event(self, event: Event) -> Event:
        event.time = self.end
        return event

    @property
    def ahead(self) -> float:
        return self.end - self.now


class Event:
    def __init__(self, machine: Machine, blocking: bool) -> None:
        assert blocking
        self.machine, self.time = machine, 0.0

    def query(self) -> bool:
        return self.machine.now >= self.time

    def synchronize(self) -> None:
        self.machine.now = max(self.machine.now, self.time)


@pytest.fixture
def machine(monkeypatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(torch.cuda, "Event", lambda blocking=False: Event(machine, blocking))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: machine)
    monkeypatch.setattr(pace_module, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    return machine


GPU = torch.device("cuda", 0)


@pytest.mark.parametrize("gpu", [0.0005, 0.008, 0.05, 0.5])
def test_the_host_is_never_far_ahead_and_the_gpu_never_waits(machine, gpu) -> None:
    pace = Pace(GPU)
    for _ in range(1000):
        machine.queue(0.0002, gpu)
        pace.queued(8)
        # How far it was ahead is known only when a piece of work ends, after which it may be as far again.
        assert machine.ahead <= max(2 * AHEAD_SECONDS + 2 * gpu, LEAST * gpu)
    assert machine.idle == 0
    assert machine.ahead >= min(AHEAD_SECONDS, LEAST * gpu) - gpu


def test_what_the_host_does_now_and_then_does_not_make_the_gpu_wait(machine) -> None:
    pace = Pace(GPU)
    for number in range(1000):
        machine.queue(0.08 if number % 100 == 99 else 0.0002, 0.004)
        pace.queued(1)
    assert machine.idle == 0


def test_a_slow_host_waits_for_nothing(machine) -> None:
    pace = Pace(GPU)
    for _ in range(1000):
        machine.queue(0.002, 0.001)
        pace.queued(1)
    assert machine.now == pytest.approx(2.0)
    for _ in range(10):  # the work becomes larger
        machine.queue(0.002, 0.5)
        pace.queued(1)
        assert machine.ahead <= (LEAST + 1) * 0.5


def test_the_host_falls_back_when_the_work_takes_longer(machine) -> None:
    pace = Pace(GPU)
    for gpu in (0.001, 0.02):
        for _ in range(1000):
            machine.queue(0.0002, gpu)
            pace.queued(1)
        assert machine.ahead <= 2 * AHEAD_SECONDS + gpu


def test_it_knows_what_the_gpu_has_not_finished(machine) -> None:
    pace = Pace(GPU)
    for batches in (8, 3):
        machine.queue(0.0, 1.0)
        pace.queued(batches)
    assert pace.unfinished() == 11
    machine.now = 1.0
    assert pace.unfinished() == 3
    machine.queue(0.0, 1.0)
    pace.queued(1)
    pace.wait()
    assert machine.now == 3.0
    assert pace.unfinished() == 0
    pace.wait()


def test_nothing_runs_ahead_on_a_cpu(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: pytest.fail("there is no GPU"))
    pace = Pace(torch.device("cpu"))
    pace.queued(1)
    pace.wait()
    assert pace.unfinished() == 0


@pytest.mark.cuda
def test_the_host_waits_for_a_gpu() -> None:
    pace = Pace(torch.device("cuda"))
    for _ in range(6):
        torch.cuda._sleep(500_000_000)  # more than a tenth of a second on any GPU
        pace.queued(1)
        assert len(pace._queue) <= LEAST
    assert pace.unfinished() <= LEAST
    pace.wait()
    assert torch.cuda.current_stream().query()


class Recorded(Pace):
    """A GPU that finishes nothing until it is waited for."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.calls: list[int] = []
        instances.append(self)

    def queued(self, batches: int = 0) -> None:
        self.calls.append(batches)

    def unfinished(self) -> int:
        return sum(self.calls)


instances: list[Recorded] = []


@pytest.fixture
def recorded(monkeypatch) -> list[Recorded]:
    instances.clear()
    monkeypatch.setattr(loop_module, "Pace", Recorded)
    return instances


def test_every_step_and_every_batch_of_an_evaluation_is_noted(make_config, recorded, monkeypatch) -> None:
    speeds = []
    monkeypatch.setattr(loop_module, "REPORT_EVERY", 5)
    monkeypatch.setattr(loop_module, "report_progress", lambda state, run, bar, speed: speeds.append(speed))
    train(make_config(epochs=1, score_epochs=True), progress=False)
    assert recorded[0].calls == [1] * 12 + [0] * 2  # validation, test
    assert speeds == [0.0, 0.0]  # of the steps that are finished


def test_a_checkpoint_does_not_cost_the_steps_that_are_being_taken(make_config, recorded, monkeypatch) -> None:
    clock, spent = [0.0], []

    def wait(self) -> None:
        clock[0] += 10

    monkeypatch.setattr(Recorded, "wait", wait)
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    save = RunFiles.save
    monkeypatch.setattr(
        RunFiles,
        "save",
        lambda self, state, required=True, seconds=0.0: (spent.append(seconds), save(self, state, required, seconds)),
    )
    with pytest.raises(Interrupted):
        train(make_config(time_limit=1e-6, checkpoint_every=3), progress=False)
    train(make_config(epochs=2, checkpoint_every=3), progress=False)
    assert len(spent) == 1 + 2 * 4
    assert spent == [0.0] * len(spent)
    assert clock[0] == 10 * len(spent)
