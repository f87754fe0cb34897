"""Carrying out one planned run, in this process or in its own."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Literal

from fastccsa.experiments.plan import PlannedRun
from fastccsa.runs.locks import try_lock
from fastccsa.system.errors import InputError

CHILD_NAME = "fastccsa experiment"


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: a device, and the number of threads that decode images (0 for the default)."""

    device: str
    threads: int = 0


@dataclass(frozen=True)
class Outcome:
    """How a run ended; busy means that another process is working on it. ``message`` says why it failed."""

    status: Literal["finished", "failed", "busy"]
    message: str = ""


def log_file(run: PlannedRun) -> Path:
    """Return the log file of a run that has its own process."""
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
                _train(run, slot) if run.row.threshold is None else _prune(run, slot)
    except InputError as error:
        return Outcome("failed", str(error))
    except Exception as error:
        traceback.print_exc()
        return Outcome("failed", f"{type(error).__name__}: {error}")
    return Outcome("finished")


def perform_in_child(run: PlannedRun, slot: Slot) -> Outcome:
    """Perform a run in a new process, whose output goes to `log_file`, and wait for it."""
    context = multiprocessing.get_context("spawn")  # after a fork, torch's threads and CUDA would not work
    receiver, sender = context.Pipe(duplex=False)
    log = log_file(run)
    log.parent.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_child, args=(run, slot, sender, log), name=CHILD_NAME, daemon=True)
    process.start()
    sender.close()
    try:
        outcome: Outcome = receiver.recv()
    except EOFError:
        process.join()
        return Outcome("failed", f"its process ended with status {process.exitcode} without a message; see {log}")
    process.join()
    return outcome


def _train(run: PlannedRun, slot: Slot) -> None:
    from fastccsa.training import train

    train(replace(run.config, device=slot.device, workers=run.config.workers or slot.threads))


def _prune(run: PlannedRun, slot: Slot) -> None:
    from fastccsa.pruning import prune

    assert run.pruning is not None
    prune(**asdict(replace(run.pruning, device=slot.device, workers=run.config.workers or slot.threads)))


def _child(run: PlannedRun, slot: Slot, sender: Connection, log: Path) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for output in (1, 2):
        os.dup2(file, output)
    sender.send(perform(run, slot))


def _die_with_parent() -> None:
    """End this process when its parent ends; an orphan would hold the run's lock."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
