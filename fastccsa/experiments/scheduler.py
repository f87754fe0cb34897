"""Carrying out a plan: one run after another, or several at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from fastccsa.cards import complete_run_card
from fastccsa.experiments.crops import make_crops
from fastccsa.experiments.perform import CHILD_NAME, Children, Outcome, Slot, perform
from fastccsa.experiments.plan import PlannedRun
from fastccsa.runs.folder import finished_scores
from fastccsa.runs.locks import is_locked
from fastccsa.system.devices import pick_device
from fastccsa.system.errors import Interrupted
from fastccsa.system.machine import usable_cpus
from fastccsa.system.progress import Say
from fastccsa.system.text import printable

POLL_SECONDS = 1.0  # between checks of what other processes have done


def make_slots(jobs: int, device: str = "auto") -> list[Slot]:
    """Make slots for ``jobs`` runs at a time, with the GPUs in turn and equal shares of the processors.

    Raises:
        InputError: there is no such device.
    """
    picked = pick_device(device)
    threads = _share_of_processors(jobs) if jobs > 1 else 0
    if picked.type == "cuda" and picked.index is None:
        gpus = torch.cuda.device_count()
        return [Slot(f"cuda:{number % gpus}", threads, jobs, -(-jobs // gpus)) for number in range(jobs)]
    return [Slot(str(picked), threads, jobs, jobs)] * jobs


def execute(runs: Sequence[PlannedRun], slots: Sequence[Slot], say: Say = tqdm.write) -> dict[PlannedRun, Outcome]:
    """Carry out the unfinished runs, and return how each of them ended.

    A run waits for the one it starts from, and for any other process that is working on it. With a single slot on the
    CPU, the runs are carried out in this process. Otherwise each slot has a process, for one run after another: some
    errors of a GPU's kernels make the GPU unusable for the rest of a process, which is then replaced. With several
    slots, the crops that the runs cache are made first.

    Args:
        runs: the runs of a plan, including all that they start from.
        slots: slots from `make_slots`.
        say: called with one line for each run that starts or ends.
    """
    if len(slots) > 1:
        make_crops(runs, slots[0].device, say)
    for run in runs:
        if run.is_finished:
            complete_run_card(run.folder)  # of a process that was killed just before
    waiting = [run for run in runs if not run.is_finished]
    total, free = len(waiting), list(slots)
    outcomes: dict[PlannedRun, Outcome] = {}
    running: dict[Future[Outcome], tuple[PlannedRun, Slot, float]] = {}
    with _workers(slots) as start, tqdm(total=total, unit="run", disable=None if len(slots) > 1 else True) as bar:

        def settle(run: PlannedRun, outcome: Outcome, how: str) -> None:
            outcomes[run] = outcome
            bar.update()
            say(f"[{len(outcomes)}/{total}] {run.name}: {printable(how)}")

        while waiting or running:
            failed = {run.folder for run, outcome in outcomes.items() if outcome.status == "failed"}
            for run in list(waiting):
                if run.is_finished:
                    settle(run, Outcome("finished"), "finished by another process")
                elif run.init in failed:
                    reason = f"not run, because {run.row.starts_from}, which it starts from, failed"
                    settle(run, Outcome("failed", reason), reason)
                elif free and _is_ready(run):
                    slot = free.pop(0)
                    say(f"{run.name}: {'resumed' if run.state == 'started' else 'started'} on {slot.device}")
                    started = time.monotonic()
                    running[start(run, slot)] = run, slot, started
                else:
                    continue
                waiting.remove(run)
            if not running:
                time.sleep(POLL_SECONDS if waiting else 0)
                continue
            for future in wait(running, POLL_SECONDS if waiting else None, FIRST_COMPLETED).done:
                run, slot, started = running.pop(future)
                free.append(slot)
                outcome = future.result()
                if outcome.status == "busy":
                    waiting.insert(0, run)
                else:
                    settle(run, outcome, _describe(run, outcome, time.monotonic() - started))
    return outcomes


def _is_ready(run: PlannedRun) -> bool:
    """Whether the run can start now."""
    return (run.init is None or finished_scores(run.init) is not None) and not is_locked(run.folder)


def _describe(run: PlannedRun, outcome: Outcome, seconds: float) -> str:
    scores = finished_scores(run.folder)
    if outcome.status == "failed" or scores is None:
        return f"failed: {outcome.message}"
    return f"finished in {seconds / 60:.1f} min, mean recall {100 * scores.average:.1f}"


Start = Callable[[PlannedRun, Slot], "Future[Outcome]"]


@contextmanager
def _workers(slots: Sequence[Slot]) -> Iterator[Start]:
    """Yield a function that starts a run in a slot; an exception in the block ends the started processes."""
    if len(slots) == 1 and slots[0].device == "cpu":
        yield _here
        return
    children = Children()
    with _threads_of_children(slots[0].threads), _signals_raise(), ThreadPoolExecutor(len(slots)) as pool:
        try:
            yield lambda run, slot: pool.submit(children.perform, run, slot)
            children.end()
        except BaseException as error:
            # The children save and end, and the pool waits for them. Whoever stopped this process may have sent them
            # the same signal, and a second one of a kind would end them at once.
            received = error.status - 128 if isinstance(error, Interrupted) else signal.SIGINT
            _stop_children(signal.SIGINT if received == signal.SIGTERM else signal.SIGTERM)
            raise


def _stop_children(number: int) -> None:
    for process in multiprocessing.active_children():
        if process.name == CHILD_NAME and process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise `Interrupted` within the block, as SIGINT raises KeyboardInterrupt.

    A second signal of a kind takes its usual effect. SIGHUP stays ignored where it is, as by ``nohup``.
    """
    before: dict[int, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, before[number])
        raise Interrupted(
            f"stopped by {signal.Signals(number).name}: the runs are saved; the same command resumes them", 128 + number
        )

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        before = {number: found for number, found in handlers.items() if found not in (None, signal.SIG_IGN)}
    try:
        for number in before:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _here(run: PlannedRun, slot: Slot) -> Future[Outcome]:
    future: Future[Outcome] = Future()
    future.set_result(perform(run, slot))
    return future


@contextmanager
def _threads_of_children(threads: int) -> Iterator[None]:
    """Let processes that are started within the block use ``threads`` processors each, and none while they wait.

    With 0, they use what they find. Variables that are already set in the environment take precedence.
    """
    ours = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"} if threads else {}
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _share_of_processors(jobs: int) -> int:
    return max(1, usable_cpus() // jobs)
