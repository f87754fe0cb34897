"""The training loop, to be read from top to bottom: `train_one_epoch`, `validate`, `train`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastccsa.cards import complete_run_card, write_run_card
from fastccsa.collections import Manifest
from fastccsa.evaluation import Candidate, Outputs, Scores, Selection, score, score_outputs
from fastccsa.evaluation.evaluate import Predictions, collect_outputs, evaluation_loader, predict
from fastccsa.images import ImageLoader
from fastccsa.models import Classifier, ModelCard, load_model, save_model
from fastccsa.ops.allocator import cpu_cache
from fastccsa.ops.profiling import stage
from fastccsa.runs.checkpoint import TrainState, check_room, has_checkpoint, load_checkpoint, save_checkpoint
from fastccsa.runs.checkpoint_check import Resumed
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import (
    SCORES_FILE,
    finished_scores,
    open_run,
    saving,
    training_speed,
    write_environment,
    write_last_scores,
    write_metrics,
)
from fastccsa.runs.images import RunImages, open_manifest, select_images
from fastccsa.runs.locks import lock_run
from fastccsa.runs.results import run_outputs, write_results
from fastccsa.runs.selection import SelectionRule
from fastccsa.runs.used_images import check_manifest, write_used_images
from fastccsa.system.devices import amp_dtype, deterministic, pick_device
from fastccsa.system.errors import InputError
from fastccsa.system.files import remove_leftovers
from fastccsa.system.machine import memory_bytes
from fastccsa.system.progress import Say, status_lines
from fastccsa.training.average import WeightAverage
from fastccsa.training.calibration import typical_distance
from fastccsa.training.divergence import divergence
from fastccsa.training.graph import GraphedStep, check_graph
from fastccsa.training.meter import Meter, Summary
from fastccsa.training.objectives import Objective, build_objective
from fastccsa.training.optimizer import end_epoch
from fastccsa.training.ranks import Ranks, open_ranks
from fastccsa.training.scalars import ScalarLog, check_trackers
from fastccsa.training.start import check_batch, describe, model_card, start_model, start_state
from fastccsa.training.step import Step, wrap_model
from fastccsa.training.stopping import StopRequests
from fastccsa.training.trace import StepTrace

REPORT_EVERY = 20  # batches between updates of the progress bar and the log

OnEpoch = Callable[[int, float], None]

logger = logging.getLogger("fastccsa.training")


@dataclass(frozen=True)
class Run:
    """The parts of a run that stay the same while it trains.

    Attributes:
        config, folder: the configuration, and the run folder.
        manifest, images: all images, and those that the run trains on and selects by.
        device, dtype: where it computes, and the dtype of autocast.
        ranks: the processes that train together.
        objective, step: what a step minimises, and the step itself.
        validation_loader: this rank's share of the validation images.
        meter: running means of the loss terms.
        card: describes the model that is saved.
        stop: requests to stop.
        log, trace: the log of scalars, and the profile of a few steps.
        say, progress: prints a status line; whether to show progress bars.
        on_epoch: called after each epoch; see `train`.
    """

    config: TrainConfig
    folder: Path
    manifest: Manifest
    images: RunImages
    device: torch.device
    dtype: torch.dtype | None
    ranks: Ranks
    objective: Objective
    step: Step
    validation_loader: ImageLoader
    meter: Meter
    card: ModelCard
    stop: StopRequests
    log: ScalarLog
    trace: StepTrace
    say: Say
    progress: bool
    on_epoch: OnEpoch | None = None


def train_one_epoch(state: TrainState, run: Run) -> dict[str, float]:
    """Train from ``state.step`` to the end of ``state.epoch``.

    Returns:
        The epoch's mean of each loss term, the seconds since ``state.step``, and the images per second.

    Raises:
        InputError: the loss is NaN or infinite, or an image cannot be read.
        Interrupted: a stop was requested; everything is saved.
    """
    every, steps = run.config.checkpoint_every, len(run.objective.loader)
    run.meter.restart(state.step)
    if state.meter:
        run.meter.load_state_dict(state.meter, run.ranks)
    state.model.train()
    started, first, saved = time.perf_counter(), state.step, state.step
    with progress_bar(state, run) as bar:
        for batch in batches(state, run):
            updated = run.step(batch, state.step)
            run.trace.step()
            state.step += 1
            bar.update()
            if state.step % REPORT_EVERY == 0 and state.step < steps:
                report_progress(state, run, bar, (state.step - first) / (time.perf_counter() - started))
            if not updated:
                continue  # gradients are still accumulating, and they are not part of a checkpoint
            stop_if_requested(state, run)
            if every and state.step - saved >= every and state.step < steps:
                save(state, run, required=False)
                saved = state.step
    means = summary(state, run).means
    seconds = time.perf_counter() - started
    seen = run.objective.images_per_sample * sum(
        run.objective.loader.sampler.rows(step) for step in range(first, steps)
    )
    return {**means, "seconds": seconds, "images_per_second": seen / seconds}


def batches(state: TrainState, run: Run) -> Iterator[Any]:
    """Yield the remaining batches of the epoch; if the loader fails, save the run."""
    remaining = iter(run.step.batches(state.epoch, state.step))
    while True:
        try:
            with stage("data"):
                batch = next(remaining, None)
        except Exception:
            # Ranks fail at different times and cannot save together: they resume from the last checkpoint.
            if run.ranks.is_alone and state.step % run.config.accumulate == 0:
                save(state, run, required=False)
                logger.error("the loader failed; the run is saved %s", position(state))
            raise
        if batch is None:
            return
        yield batch


def report_progress(state: TrainState, run: Run, bar: tqdm[None], batches_per_second: float) -> None:
    """Show and log the epoch's losses so far, without a host sync."""
    seen = run.meter.look()
    if seen is None:
        return
    if seen.bad_step >= 0 and run.ranks.is_alone:  # several ranks check together, at the end of the epoch
        raise diverged(state, run, seen)
    run.log.add("train", seen.means, state.epoch * len(run.objective.loader) + state.step)
    speed = batches_per_second * run.config.batch_size * run.objective.images_per_sample
    bar.set_postfix_str(f"loss {seen.means['loss']:.4f}, {speed:.0f} images/s")


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


def stop_if_requested(state: TrainState, run: Run) -> None:
    """Save and raise `Interrupted` if any rank was asked to stop."""
    request = run.ranks.highest(run.stop.requested())
    if request:
        save(state, run)
        raise run.stop.interrupted(request, f"{run.folder} is saved {position(state)}; the same command resumes it")


def save(state: TrainState, run: Run, required: bool = True) -> None:
    """Save everything. If it is not ``required``, a failed write is a warning: a later one may succeed.

    Raises:
        InputError: it cannot be written, or the loss was not finite: such weights are never saved.
    """
    if state.step:
        summary(state, run)
        state.meter = run.meter.state_dict(run.ranks)
    if run.ranks.is_first:
        with saving(run.folder, required):
            save_checkpoint(run.folder, state, run.config.to_json())


def position(state: TrainState) -> str:
    """Return how far the run has trained, in words."""
    return f"up to epoch {state.epoch + 1}, batch {state.step}" if state.step else f"up to epoch {state.epoch}"


def progress_bar(state: TrainState, run: Run) -> tqdm[None]:
    """Make the progress bar of an epoch."""
    return tqdm(
        desc=f"epoch {state.epoch + 1}/{run.config.epochs}",
        total=len(run.objective.loader),
        initial=state.step,
        unit="step",
        leave=False,
        disable=None if run.progress else True,
    )


def validate(state: TrainState, run: Run) -> Scores:
    """Score the current model on the run's validation images, of which each rank takes a share.

    Raises:
        Interrupted: a stop was requested; the epoch's training is saved.
    """
    # The ranks' parameters are equal, but each may have its own BatchNorm statistics.
    run.ranks.copy_from_first(model_to_keep(state).buffers())
    images = stoppable(run.validation_loader.epoch(0), state, run)
    parts = run.ranks.gather(predict(model_to_keep(state), images, run.device, run.dtype))
    found = Predictions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    validation = run.images.validation
    return score(*found, classes=validation.classes, domains=validation.domains, split="validation")


def stoppable(walk: Iterator[dict[str, Tensor]], state: TrainState, run: Run) -> Iterator[dict[str, Tensor]]:
    """Yield the batches of ``walk``; before each one, stop if that was requested."""
    for batch in walk:
        stop_if_requested(state, run)
        yield batch


def model_to_keep(state: TrainState) -> Classifier:
    """Return the model that is scored and saved: the moving average if there is one."""
    return state.average.model if isinstance(state.average, WeightAverage) else state.model


def finish_epoch(state: TrainState, run: Run, means: Mapping[str, float]) -> None:
    """Validate, keep the model if its epoch is selected, and save everything."""
    lr = float(state.scheduler.get_last_lr()[0])
    scores = validate(state, run)
    end_epoch(state.scheduler)
    state.epoch, state.step, state.meter = state.epoch + 1, 0, {}
    by_domain = {name: domain.macro_recall for name, domain in scores.domains.items()}
    broken = len(run.objective.loader.broken)
    state.history.append(
        {
            "epoch": state.epoch,
            "lr": lr,
            **means,
            "broken_images": broken,
            "validation_recall": scores.average,
            "selection": {rule: criterion.mean(by_domain) for rule, criterion in run.images.criteria.items()},
            "validation": by_domain,
        }
    )
    selected = choice(state, run, run.images.selection)
    if run.ranks.is_first:
        # The checkpoint comes last: a run that resumes from the one before it writes the other files again.
        with saving(run.folder):
            if selected.epoch == state.epoch:
                save_model(run.folder, model_to_keep(state), run.card)
            write_metrics(run.folder, state.history)
        save(state, run)

    batch = state.epoch * len(run.objective.loader)
    run.log.add("train", {**means, "lr": lr}, batch)
    run.log.add("validation_recall", {"average": scores.average, **by_domain}, batch)
    run.say(
        f"epoch {state.epoch}/{run.config.epochs}  loss {means['loss']:.4f}  lr {lr:.1e}  "
        f"validation recall {100 * criterion_by_epoch(state, run, run.images.selection)[-1]:.1f} "
        f"(selected: {100 * selected.recall:.1f}, epoch {selected.epoch})  "
        f"{means['images_per_second']:.0f} images/s" + (f"  {broken} broken images replaced" if broken else "")
    )
    if run.on_epoch is not None:
        run.on_epoch(state.epoch, criterion_by_epoch(state, run, run.images.selection)[-1])


def criterion_by_epoch(state: TrainState, run: Run, rule: SelectionRule) -> list[float]:
    """Return the criterion of ``rule`` for every finished epoch."""
    # Computed from the recalls, because records of older versions do not have the criteria.
    return [run.images.criteria[rule].mean(record["validation"]) for record in state.history]


def choice(state: TrainState, run: Run, rule: SelectionRule) -> Candidate:
    """Return the finished epoch that ``rule`` selects."""
    values = criterion_by_epoch(state, run, rule)
    epoch = run.images.criteria[rule].select(values)
    return Candidate(epoch, values[epoch - 1])


def is_done(state: TrainState, run: Run) -> bool:
    """Whether all epochs are done, or the highest criterion of the run's rule is ``patience`` epochs ago."""
    values, patience = criterion_by_epoch(state, run, run.images.selection), run.config.patience
    # The selected epoch may be a later one whose criterion is lower: only a higher criterion counts as an improvement.
    highest = values.index(max(values)) + 1 if values else 0
    return state.epoch >= run.config.epochs or bool(patience and state.epoch - highest >= patience)


def train(config: TrainConfig, progress: bool = True, on_epoch: OnEpoch | None = None) -> Scores:
    """Train a run, or resume it where it stopped, and score the model of the selected epoch on the test images.

    The same call resumes from the last checkpoint. On the CPU, with the same number of threads, a resumed run ends with
    the same weights, bit for bit, as an uninterrupted one. A finished run is left unchanged. Under torchrun the
    processes train one model together.

    Args:
        config: the run.
        progress: print status lines on stdout, and show a progress bar on a terminal.
        on_epoch: called after each epoch, when everything is saved, with its number (from 1) and the validation recall
            that the rule of selection compares. What it raises ends the training, which the same call resumes.

    Returns:
        The test scores by domain of the epoch that ``config.selection`` selects.

    Raises:
        InputError: something in the input keeps the run from starting (raised before it starts), the folder holds
            another run or is in use by another process, the loss is no longer finite, or the disk is full.
        Interrupted: SIGTERM, SIGHUP, Ctrl-C or the time limit stopped it; everything is saved.
    """
    with deterministic(config.deterministic), open_ranks(config.device) as ranks, ExitStack() as held:
        return train_with(config, ranks, progress and ranks.is_first, held, on_epoch)


def train_with(
    config: TrainConfig, ranks: Ranks, progress: bool, held: ExitStack, on_epoch: OnEpoch | None = None
) -> Scores:
    """Train as one of ``ranks``; see `train`. The lock of the run ends when the caller closes ``held``."""
    say = status_lines(progress)
    if not config.out.strip():
        raise InputError("out is empty: name the run folder")
    check_trackers(config.track)
    config, manifest = open_manifest(config)
    images = select_images(config, manifest)
    if config.init and ranks.is_first:
        check_manifest(config.init, config.manifest, manifest, ("validation", "test"), allow=True)
    device = pick_device(config.device, None if ranks.is_alone else ranks.local_rank)
    dtype = amp_dtype(config.amp, device)
    check_graph(config, device, dtype, ranks)
    with ranks.first_before_others():
        if ranks.is_first:
            held.enter_context(lock_run(Path(config.out)))
        folder = open_run(config)
    if scores := finished_scores(folder):
        if ranks.is_first:
            complete_run_card(folder)
        say(f"{folder} is finished: its test scores are in {folder / SCORES_FILE}")
        return scores

    torch.manual_seed(config.seed)
    model = start_model(config, manifest.classes, has_checkpoint(folder), say)
    check_batch(model, config, ranks.world)
    state = start_state(config, model, device, dtype, ranks)
    with ExitStack() as stack:
        if device.type == "cpu":
            stack.enter_context(cpu_cache(memory_bytes() // 4))
        with ranks.first_before_others():  # the first fills the cache of images
            objective = build_objective(config, images, device, model.feature_width, ranks)
            state.memory = objective.memory
            stack.enter_context(objective.loader)
            validation_loader = stack.enter_context(open_validation(config, images, device, ranks))
        say(describe(config, images, model, device))
        with ranks.first_before_others():  # the first may have to replace a damaged checkpoint by the previous one
            resumed = load_checkpoint(
                folder, state, Resumed(config, len(objective.loader), len(objective.terms), images.domains)
            )
        if ranks.rank:  # each rank needs different dropout masks, and only the first rank's random state is saved
            torch.manual_seed(config.seed + ranks.rank * 1_000_003 + state.epoch * 1_009 + state.step)
        objective.calibrate(lambda: ranks.gather(typical_distance(model, images.training, config, device, dtype))[0])
        if resumed:
            say(f"resuming {folder} after epoch {state.epoch}, step {state.step}")
        if ranks.is_first:
            remove_leftovers(folder)
            check_room(folder, state)
            # A resumed model no longer has its initial weights.
            initial = {} if resumed else {"first_weights": config.init or model.first_weights}
            with saving(folder):
                write_environment(folder, device, **initial)
                write_used_images(folder, config, images)
                objective.record.write(folder)
        meter = Meter(objective.terms, device)
        step_type = GraphedStep if config.cuda_graph else Step
        done = state.epoch * len(objective.loader) + state.step
        run = Run(
            config=config,
            folder=folder,
            manifest=manifest,
            images=images,
            device=device,
            dtype=dtype,
            ranks=ranks,
            objective=objective,
            step=step_type(
                state=state,
                network=wrap_model(state, config, device, ranks),
                objective=objective,
                config=config,
                meter=meter,
                device=device,
                dtype=dtype,
                ranks=ranks,
            ),
            validation_loader=validation_loader,
            meter=meter,
            card=model_card(config, images),
            log=stack.enter_context(ScalarLog(folder if ranks.is_first else None, config, done)),
            stop=stack.enter_context(StopRequests(config.time_limit)),
            trace=stack.enter_context(StepTrace(folder if config.profile and ranks.is_first else None, say)),
            say=say,
            progress=progress,
            on_epoch=on_epoch,
        )
        while not is_done(state, run):
            if state.step == 0:
                stop_if_requested(state, run)
            means = train_one_epoch(state, run)
            finish_epoch(state, run, means)

    if ranks.is_first:
        with saving(folder):
            write_environment(folder, device, training=training_speed(state.history))
    scores = score_best(state, run)
    assert scores.selection is not None
    say(f"test scores of epoch {scores.selection.epoch} ({images.selection_rule}):\n{scores}")
    return scores


def open_validation(config: TrainConfig, images: RunImages, device: torch.device, ranks: Ranks) -> ImageLoader:
    """Open the loader of this rank's share of the validation images."""
    return evaluation_loader(
        images.validation,
        device,
        config.size,
        workers=config.workers,
        image_backend=config.image_backend,
        cache=config.image_cache,
        rank=ranks.rank,
        world_size=ranks.world,
    )


def score_best(state: TrainState, run: Run) -> Scores:
    """Score the selected epoch's model on the test images of every domain; write its outputs and the scores.

    The outputs on the validation images are written too: thresholds are chosen on them.

    The last epoch's model is scored too, which shows the effect of the selection.
    """
    run.ranks.highest(0)  # wait until the first rank has written the model
    rule = run.images.selection
    last = Candidate(state.epoch, criterion_by_epoch(state, run, rule)[-1])
    choices = {name: choice(state, run, name) for name in run.images.criteria}
    selected = choices[rule]
    model = load_model(run.folder)
    outputs, validation = test_outputs(model, run), validation_outputs(model, run)
    scores = score_outputs(outputs)
    of_last = scores
    if selected.epoch != last.epoch:
        of_last = score_outputs(test_outputs(model_to_keep(state), run))
    scores = replace(
        scores, selection=Selection(run.images.selection_rule, selected.epoch, selected.recall, choices, last)
    )
    if run.ranks.is_first:
        with saving(run.folder):
            write_last_scores(run.folder, replace(of_last, selection=Selection("last epoch", last.epoch, last.recall)))
            write_results(run.folder, outputs, validation, scores)
        write_run_card(run.folder)
    return scores


def validation_outputs(model: Classifier, run: Run) -> Outputs:
    """Return the outputs of ``model`` on the run's validation images, those that selected it; each rank takes a share.

    They come from the same cache as during the training, without which they would be decoded again.
    """
    images = run.images.validation
    with open_validation(run.config, run.images, run.device, run.ranks) as loader:
        share = collect_outputs(
            model.to(run.device).to(memory_format=torch.channels_last),
            loader.epoch(0),
            run.device,
            run.dtype,
            images,
            "validation",
        )
    row_of = {path: row for row, path in enumerate(run.manifest.paths)}
    rows = np.array([row_of[path] for path in images.paths], np.int64)
    return Outputs.join(run.ranks.gather(replace(share, rows=rows[share.rows])))


def test_outputs(model: Classifier, run: Run) -> Outputs:
    """Return the outputs of ``model`` on the test images of every domain, of which each rank takes a share."""
    share = run_outputs(run.config, model, run.manifest, run.device, run.ranks.rank, run.ranks.world)
    return Outputs.join(run.ranks.gather(share))
