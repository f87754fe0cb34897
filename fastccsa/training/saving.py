"""When a run is saved: as often as its time allows, when it is asked to stop, and at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import Tensor

from fastccsa.runs.checkpoint import TrainState
from fastccsa.training.divergence import divergence
from fastccsa.training.meter import Summary
from fastccsa.training.run import Run


def summary(state: TrainState, run: Run) -> Summary:
    """Return the epoch's losses so far over all ranks, after checking that they are finite."""
    found = run.meter.summary(run.ranks)
    if run.ranks.highest(found.bad_step) >= 0:
        raise diverged(state, run, found)
    return found


def diverged(state: TrainState, run: Run, found: Summary) -> Exception:
    """Return the error for a loss that is not finite."""
    return divergence(
        run.objective, run.step.forward, run.images.training, state.epoch, found, folder=run.folder, ranks=run.ranks
    )


def save(state: TrainState, run: Run, required: bool = True) -> None:
    """Start saving everything. If it is not ``required``, a failed write is a warning: a later one may succeed.

    Raises:
        InputError: the loss was not finite: such weights are never saved. Or an earlier write failed.
    """
    run.pace.wait()  # for steps that the GPU would take in any case: they are not what a checkpoint costs
    start = time.perf_counter()
    if state.step:
        summary(state, run)
        state.meter = run.meter.state_dict(run.ranks)
    if run.ranks.is_first:
        run.files.save(state, required, time.perf_counter() - start)


def save_if_due(state: TrainState, run: Run, saved: int) -> int:
    """Between two steps, stop if that was requested, and save if it is time to, given the step saved last.

    Returns:
        The step saved last.

    Raises:
        Interrupted: a stop was requested; everything is saved.
        InputError: an earlier write failed, or the loss was not finite.
    """
    within = state.step < len(run.objective.loader)
    due = within and run.ranks.is_first and run.files.is_due(state.step - saved)
    # The ranks agree with a single exchange: a request to stop takes precedence.
    found = run.ranks.highest(2 * run.stop.requested() + due)
    stop_for(found // 2, state, run)
    if not found % 2:
        return saved
    save(state, run, required=False)
    return state.step


def stop_if_requested(state: TrainState, run: Run) -> None:
    """Save and raise `Interrupted` if any rank was asked to stop."""
    stop_for(run.ranks.highest(run.stop.requested()), state, run)


def stop_for(request: int, state: TrainState, run: Run) -> None:
    """Save and raise `Interrupted` if ``request`` is one."""
    if request:
        save(state, run)
        run.files.wait()
        raise run.stop.interrupted(request, f"{run.folder} is saved {position(state)}; the same command resumes it")


def before_batch(state: TrainState, run: Run) -> None:
    """Before a batch of an evaluation, wait until the GPU is near, and stop if that was requested."""
    run.pace.queued()
    stop_if_requested(state, run)


def stoppable(walk: Iterator[dict[str, Tensor]], state: TrainState, run: Run) -> Iterator[dict[str, Tensor]]:
    """Yield the batches of ``walk``; before each one, stop if that was requested."""
    for batch in walk:
        before_batch(state, run)
        yield batch


def position(state: TrainState) -> str:
    """Return how far the run has trained, in words."""
    return f"up to epoch {state.epoch + 1}, batch {state.step}" if state.step else f"up to epoch {state.epoch}"
