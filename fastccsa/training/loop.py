"""The training loop, to be read from top to bottom: `train_one_epoch`, `finish_epoch`, `train`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from fastccsa.cards import complete_run_card
from fastccsa.evaluation import Scores
from fastccsa.evaluation.parts import Parts
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.images import ImageLoader
from fastccsa.images.choices import Cache
from fastccsa.ops.allocator import cpu_cache
from fastccsa.ops.profiling import stage
from fastccsa.runs.background import Background
from fastccsa.runs.checkpoint import TrainState, check_room, has_checkpoint, load_checkpoint
from fastccsa.runs.checkpoint_check import Resumed
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.runs.folder import (
    SCORES_FILE,
    finished_scores,
    open_run,
    saving,
    training_speed,
    write_config,
    write_environment,
)
from fastccsa.runs.images import open_manifest, select_images, watched_images
from fastccsa.runs.locks import lock_run
from fastccsa.runs.run_files import RunFiles
from fastccsa.runs.used_images import check_manifest, write_used_images
from fastccsa.system.devices import amp_dtype, deterministic, pick_device
from fastccsa.system.errors import InputError
from fastccsa.system.files import remove_leftovers
from fastccsa.system.gpu_memory import release
from fastccsa.system.machine import memory_bytes
from fastccsa.system.progress import status_lines
from fastccsa.training.average import model_to_keep
from fastccsa.training.averaging import after_validation, before_validation, save_swad
from fastccsa.training.calibration import shared_distance
from fastccsa.training.graph import GraphedStep, check_graph
from fastccsa.training.memory import FullError, report_full_memory
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import Objective, build_objective
from fastccsa.training.optimizer import end_epoch
from fastccsa.training.pace import Pace
from fastccsa.training.pixels import pixel_dtype
from fastccsa.training.ranks import Ranks, open_ranks
from fastccsa.training.resources import choose_caches, describe_resources, open_cached, use_graph
from fastccsa.training.run import OnEpoch, Run, choice, criterion_by_epoch, is_done
from fastccsa.training.saving import diverged, position, save, save_if_due, stop_if_requested, summary
from fastccsa.training.scalars import ScalarLog, check_trackers
from fastccsa.training.scoring import open_validation, score_best, validate
from fastccsa.training.start import (
    check_batch,
    describe,
    model_card,
    repeat_rates,
    start_model,
    start_state,
    suit_rates,
)
from fastccsa.training.step import Step, wrap_model
from fastccsa.training.stopping import StopRequests
from fastccsa.training.trace import StepTrace
from fastccsa.training.watch import Watch

REPORT_EVERY = 20  # batches between updates of the progress bar and the log

logger = logging.getLogger("fastccsa.training")


def train_one_epoch(state: TrainState, run: Run) -> dict[str, float]:
    """Train from ``state.step`` to the end of ``state.epoch``.

    Returns:
        The epoch's mean of each loss term, the seconds since ``state.step``, and the images per second.

    Raises:
        InputError: the loss is NaN or infinite, or an image cannot be read.
        Interrupted: a stop was requested; everything is saved.
    """
    steps = len(run.objective.loader)
    run.meter.restart(state.step)
    if state.meter:
        run.meter.load_state_dict(state.meter, run.ranks)
    state.model.train()
    started, first, saved = time.perf_counter(), state.step, state.step
    with progress_bar(state, run) as bar:
        for batch in batches(state, run):
            before, count = state.step, run.step.count(batch)
            updated = run.step(batch, before)
            run.pace.queued(count)
            run.trace.step()
            state.step += count
            bar.update(count)
            if state.step // REPORT_EVERY > before // REPORT_EVERY and state.step < steps:
                done = state.step - first - run.pace.unfinished()
                report_progress(state, run, bar, done / (time.perf_counter() - started))
            if not updated:
                continue  # gradients are still accumulating, and they are not part of a checkpoint
            saved = save_if_due(state, run, saved)
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
                run.files.wait()
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


def finish_epoch(state: TrainState, run: Run, means: Mapping[str, float]) -> None:
    """Validate, keep the model if its epoch is selected, and save everything if it is time to."""
    before_validation(state, run)  # which may read training images: the loader can only then begin the next epoch
    if state.epoch + 1 < run.config.epochs:
        run.step.prepare(state.epoch + 1)
    lr = float(state.scheduler.get_last_lr()[0])
    scores, loss = validate(state, run)
    more = after_validation(state, run, loss)
    end_epoch(state.scheduler)
    state.epoch, state.step, state.meter = state.epoch + 1, 0, {}
    by_domain = {name: domain.macro_recall for name, domain in scores.domains.items()}
    broken = len(run.objective.loader.broken)
    state.history.append(
        {
            "epoch": state.epoch,
            "lr": lr,
            **means,
            **more,
            "broken_images": broken,
            "validation_recall": scores.average,
            "selection": {rule: criterion.mean(by_domain) for rule, criterion in run.images.criteria.items()},
            "validation": by_domain,
        }
    )
    selected = choice(state, run, run.images.selection)
    if run.ranks.is_first:
        if selected.epoch == state.epoch:
            run.files.keep_model(model_to_keep(state))
        if run.files.is_due_after_epoch() or is_done(state, run):
            save(state, run)
        else:
            run.files.save_metrics(state.history)

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


def train(
    config: TrainConfig, progress: bool = True, suits_weights: bool = False, on_epoch: OnEpoch | None = None
) -> Scores:
    """Train a run, or resume it where it stopped, and score the model of the selected epoch on the test images.

    The same call resumes from the last checkpoint. On the CPU, with the same number of threads, a resumed run ends with
    the same weights, bit for bit, as an uninterrupted one. A finished run is left unchanged. Under torchrun the
    processes train one model together.

    Args:
        config: the run.
        progress: print status lines on stdout, and show a progress bar on a terminal.
        suits_weights: choose the learning rate by the first weights; ``config.lr`` is for pretrained ones.
        on_epoch: called after each epoch with its number (from 1) and the validation recall that the rule of selection
            compares. What it raises ends the training, which the same call resumes from the last checkpoint.

    Returns:
        The test scores by domain of the epoch that ``config.selection`` selects.

    Raises:
        InputError: something in the input keeps the run from starting (raised before it starts), the folder holds
            another run or is in use by another process, the loss is no longer finite, or the disk is full.
        Interrupted: SIGTERM, SIGHUP, Ctrl-C or the time limit stopped it; everything is saved.
    """
    caches: tuple[Cache, ...] = ()
    with deterministic(config.deterministic), open_ranks(config.device) as ranks, ExitStack() as held:
        while True:
            try:
                return train_with(config, ranks, progress and ranks.is_first, held, suits_weights, on_epoch, caches)
            except FullError as error:
                if not error.following:
                    raise
                caches = error.following
                logger.warning(
                    "cache %s leaves too little memory, and %s is used: %s", error.cache, caches[0], error.reason
                )
            release()  # not in the block above, where the error still holds the run


def train_with(
    config: TrainConfig,
    ranks: Ranks,
    progress: bool,
    held: ExitStack,
    suits_weights: bool = False,
    on_epoch: OnEpoch | None = None,
    caches: tuple[Cache, ...] = (),
) -> Scores:
    """Train as one of ``ranks``; see `train`. The lock of the run ends when the caller closes ``held``.

    ``caches`` are those that a run may use which had no memory left with others before.
    """
    say = status_lines(progress)
    if not config.out.strip():
        raise InputError("out is empty: name the run folder")
    check_trackers(config.track)
    config, manifest = open_manifest(config)
    images = select_images(config, manifest)
    if config.init and ranks.is_first:
        check_manifest(config.init, config.manifest, manifest, ("validation", "test"), allow=True)
    device = pick_device(config.device, None if ranks.is_alone else ranks.local_rank)
    if device.type == "cuda":
        held.enter_context(torch.cuda.device(device))  # where new streams, and events without a stream, belong to
    dtype = amp_dtype(config.amp, device)
    begun = ranks.highest((Path(config.out) / CONFIG_FILE).exists())
    if suits_weights and begun:
        config = repeat_rates(config)
    watched = watched_images(config, manifest, images.domains).values()
    reasons: list[str] = []
    caches = caches or choose_caches(config, images, list(watched), device, ranks, reasons.append)
    if config.cuda_graph and "gpu" in caches:
        caches = ("gpu",)
    config = replace(config, cache=caches[0])
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
    if suits_weights and not begun:
        config = suit_rates(config, model.first_weights, say)
        if ranks.is_first:
            with saving(folder):
                write_config(config)
    with ExitStack() as stack:
        stack.enter_context(report_full_memory(lambda: config, caches, ranks))
        state = start_state(config, model, device, dtype, ranks)
        if device.type == "cpu":
            stack.enter_context(cpu_cache(memory_bytes() // 4))

        def open_images(cache: Cache, opened: ExitStack) -> tuple[Objective, ImageLoader, Watch]:
            cached = replace(config, cache=cache)
            pixels = pixel_dtype(cached, model, dtype)
            objective = build_objective(cached, images, device, model.feature_width, ranks, pixels)
            opened.enter_context(objective.loader)
            validation_loader = opened.enter_context(open_validation(cached, images, device, ranks, pixels))
            watch = opened.enter_context(Watch(cached, manifest, images.domains, device, ranks, pixels))
            return objective, validation_loader, watch

        cache, (objective, validation_loader, watch), opened = open_cached(caches, ranks, open_images)
        stack.enter_context(opened)
        if cache != config.cache:
            config = replace(config, cache=cache)
            if ranks.is_first:
                with saving(folder):
                    write_config(config)
        graph = use_graph(config, device, dtype, ranks)
        state.memory = objective.memory
        objective.attach(model)
        say(describe(config, images, model, device))
        say(describe_resources(config, (objective.loader, validation_loader), device, dtype, ranks, reasons))
        with ranks.first_before_others():  # the first may have to replace a damaged checkpoint by the previous one
            resumed = load_checkpoint(
                folder, state, Resumed(config, len(objective.loader), len(objective.terms), images.domains)
            )
        if ranks.rank:  # each rank needs different dropout masks, and only the first rank's random state is saved
            torch.manual_seed(config.seed + ranks.rank * 1_000_003 + state.epoch * 1_009 + state.step)
        objective.calibrate(lambda: shared_distance(model, images.training, config, device, dtype, ranks))
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
        step_type = GraphedStep if graph else Step
        replayed = ReplayedPredictions(validation_loader, dtype) if graph else None
        if replayed is not None:
            watch.replay(replayed)
        done = state.epoch * len(objective.loader) + state.step
        # Closed before the test: from then on a signal ends the process, which loses nothing.
        with ExitStack() as training:
            # Closed last: what is written when an error ends the run is finished.
            background = training.enter_context(Background(config.checkpoint_share))
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
                watch=watch,
                replayed=replayed,
                halved=Parts(),
                meter=meter,
                pace=Pace(device),
                files=RunFiles(folder, config, model_card(config, images), background),
                log=training.enter_context(ScalarLog(folder if ranks.is_first else None, config, done)),
                stop=training.enter_context(StopRequests(config.time_limit)),
                trace=training.enter_context(StepTrace(folder if config.profile and ranks.is_first else None, say)),
                say=say,
                progress=progress,
                on_epoch=on_epoch,
            )
            training.callback(run.step.close)
            while not is_done(state, run):
                if state.step == 0:
                    stop_if_requested(state, run)
                means = train_one_epoch(state, run)
                finish_epoch(state, run, means)
            save_swad(state, run)

        if ranks.is_first:
            with saving(folder):
                write_environment(folder, device, training=training_speed(state.history))
        scores = score_best(state, run)
    assert scores.selection is not None
    say(f"test scores of epoch {scores.selection.epoch} ({scores.selection.rule}):\n{scores}")
    return scores
