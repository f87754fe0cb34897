"""Carrying out one planned run, in this process or in another one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

from fastccsa.experiments.plan import PlannedRun
from fastccsa.runs.locks import try_lock
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.system.gpu_memory import release
from fastccsa.system.logs import log_to_terminal
from fastccsa.system.machine import memory_share

CHILD_NAME = "fastccsa experiment"


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time.

    Attributes:
        device: where the run trains.
        threads: number of threads that decode images; 0 for the default.
        jobs, jobs_on_device: number of runs at a time, and of those on this device, which share its memory.
    """

    device: str
    threads: int = 0
    jobs: int = field(default=1, compare=False)
    jobs_on_device: int = field(default=1, compare=False)


@dataclass(frozen=True)
class Outcome:
    """How a run ended; busy means that another process is working on it. ``message`` says why it failed."""

    status: Literal["finished", "failed", "busy"]
    message: str = ""


def log_file(run: PlannedRun) -> Path:
    """Return the log file of a run that another process carries out."""
    return run.folder.with_name(f"{run.folder.name}.log")


def perform(run: PlannedRun, slot: Slot) -> Outcome:
    """Train, resume or prune a run, unless it is finished or another process is working on it.

    An error becomes the outcome of the run, so that other runs can continue.
    """
    try:
        with try_lock(run.folder) as acquired:
            if not acquired:
                return Outcome("busy")
            if not run.is_finished:
                with memory_share(1 / slot.jobs, 1 / slot.jobs_on_device):
                    _train(run, slot) if run.row.threshold is None else _prune(run, slot)
    except InputError as error:
        return Outcome("failed", str(error))
    except Exception as error:
        traceback.print_exc()
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("finished")


class Child:
    """A process that performs one run after another.

    If several runs are performed at a time, the output of each goes to its `log_file`, and otherwise to where that of
    this process goes. Starting a process takes seconds, for torch and for a GPU's context, and the next run can use
    both.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # after a fork, torch's threads and CUDA would not work
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_child, args=(theirs,), name=CHILD_NAME, daemon=True)
        self._process.start()
        theirs.close()

    def perform(self, run: PlannedRun, slot: Slot) -> Outcome:
        """Perform a run, and wait for it.

        Raises:
            Interrupted: the run was stopped, and it is the only one at this time.
        """
        log = log_file(run) if slot.jobs > 1 else None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection.send((run, slot, log))
            outcome: Outcome | Interrupted = self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join()
            status = self._process.exitcode
            where = "" if log is None else f"; see {log}"
            return Outcome("failed", f"its process ended with status {status} without a message{where}")
        if isinstance(outcome, Outcome):
            return outcome
        self._process.join()
        if slot.jobs == 1:
            raise outcome
        return Outcome("failed", str(outcome))

    def end(self) -> None:
        """End the process, which must not be performing a run."""
        with suppress(OSError):  # it has died
            self._connection.send(None)
        self._connection.close()
        self._process.join()


class Children:
    """The processes of a scheduler, at most one for each run at a time, reused for runs on the same device."""

    def __init__(self) -> None:
        self._idle: dict[str, list[Child]] = {}

    def perform(self, run: PlannedRun, slot: Slot) -> Outcome:
        """Perform a run in one of the processes, or in a new one, and wait for it. Thread-safe."""
        idle = self._idle.setdefault(slot.device, [])
        try:
            child = idle.pop()
        except IndexError:
            child = Child()
        outcome = child.perform(run, slot)
        if outcome.status == "failed":
            child.end()  # an error of a GPU's kernel makes the GPU unusable for the rest of the process
        else:
            idle.append(child)
        return outcome

    def end(self) -> None:
        """End all processes, which must not be performing a run."""
        for idle in self._idle.values():
            while idle:
                idle.pop().end()


def _train(run: PlannedRun, slot: Slot) -> None:
    from fastccsa.training import train

    train(replace(run.config, device=slot.device, workers=run.config.workers or slot.threads))


def _prune(run: PlannedRun, slot: Slot) -> None:
    from fastccsa.pruning import prune

    assert run.pruning is not None
    prune(**asdict(replace(run.pruning, device=slot.device, workers=run.config.workers or slot.threads)))


def _child(connection: Connection) -> None:
    """Perform runs until the parent sends None, or asks for a stop by a signal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell start with it ignored
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with suppress(KeyboardInterrupt):  # the parent has been asked to stop, too, and says so
        while task := connection.recv():
            run, slot, log = task
            if log is not None:
                _write_output_to(log)
            try:
                with log_to_terminal():  # which may be the log now
                    outcome = perform(run, slot)
            except Interrupted as stop:
                connection.send(stop)
                return
            release()  # which other processes may need
            connection.send(outcome)


def _write_output_to(log: Path) -> None:
    """Append everything that this process writes from now on to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for output in (1, 2):
        os.dup2(file, output)
    os.close(file)


def _die_with_parent() -> None:
    """End this process when its parent ends; an orphan would hold the run's lock."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
