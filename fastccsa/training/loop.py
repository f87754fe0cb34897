"""Training, from top to bottom: `train_one_epoch`, `validate`, `train`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fastccsa.collections import Manifest
from fastccsa.evaluation import Outputs, Scores, Selection, score, score_outputs
from fastccsa.evaluation.evaluate import Predictions, evaluation_loader, predict
from fastccsa.images import ImageLoader
from fastccsa.models.backbone import Classifier, ModelCard, load_model, save_model
from fastccsa.ops.allocator import cpu_cache
from fastccsa.ops.profiling import stage
from fastccsa.runs.checkpoint import TrainState, has_checkpoint, load_checkpoint, save_checkpoint
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import (
    SCORES_FILE,
    ScalarLog,
    check_room,
    finished_scores,
    open_run,
    saving,
    training_speed,
    write_environment,
    write_metrics,
)
from fastccsa.system.devices import amp_dtype, deterministic, pick_device
from fastccsa.system.files import remove_leftovers
from fastccsa.system.machine import memory_bytes
from fastccsa.training.average import WeightAverage
from fastccsa.training.divergence import divergence
from fastccsa.training.graph import GraphedStep, check_graph
from fastccsa.training.images import RunImages, open_manifest, select_images
from fastccsa.training.meter import Meter, Summary
from fastccsa.training.objectives import Objective, build_objective
from fastccsa.training.optimizer import end_epoch
from fastccsa.training.ranks import Ranks, open_ranks
from fastccsa.training.results import run_test, write_results
from fastccsa.training.start import Say, describe, model_card, start_model, start_state
from fastccsa.training.step import Step, wrap_model
from fastccsa.training.stopping import StopRequests
from fastccsa.training.trace import StepTrace

LOG_EVERY = 20  # batches from one look at the loss to the next

logger = logging.getLogger("fastccsa.training")


@dataclass(frozen=True)
class Run:
    """What stays the same through a run."""

    config: TrainConfig
    folder: Path
    device: torch.device
    dtype: torch.dtype | None
    ranks: Ranks
    objective: Objective
    training: Manifest
    validation: Manifest
    validation_loader: ImageLoader
    meter: Meter
    step: Step
    stop: StopRequests
    log: ScalarLog
    trace: StepTrace
    progress: bool


def train_one_epoch(state: TrainState, run: Run) -> dict[str, float]:
    """Train from ``state.step`` to the end of ``state.epoch``; the epoch's mean of each loss term.

    What is returned also has the seconds since ``state.step``, and the images a second.

    Raises:
        InputError: the loss is NaN or infinite, or an image cannot be read.
        Interrupted: something asked to stop; everything is saved.
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
            if state.step % LOG_EVERY == 0 and state.step < steps:
                look(state, run, bar, (state.step - first) / (time.perf_counter() - started))
            if not updated:
                continue  # a step is in the making: gradients are not part of a checkpoint
            stop_if_asked(state, run)
            if every and state.step - saved >= every and state.step < steps:
                save(state, run, or_go_on=True)
                saved = state.step
    means = summary(state, run).means
    seconds = time.perf_counter() - started
    seen = run.objective.images_per_sample * sum(
        run.objective.loader.sampler.rows(step) for step in range(first, steps)
    )
    return {**means, "seconds": seconds, "images_per_second": seen / seconds}


def batches(state: TrainState, run: Run) -> Iterator[Any]:
    """Walk what is left of the epoch; should the loader fail, save what was learnt up to there."""
    walk = iter(run.step.batches(state.epoch, state.step))
    while True:
        try:
            with stage("data"):
                batch = next(walk, None)
        except Exception:
            # Ranks fail one by one and cannot save together: they go on from the last checkpoint.
            if run.ranks.is_alone and state.step % run.config.accumulate == 0:
                save(state, run, or_go_on=True)
                logger.error("no images after %s", kept(state))
            raise
        if batch is None:
            return
        yield batch


def look(state: TrainState, run: Run, bar: tqdm[None], batches_a_second: float) -> None:
    """Show how the epoch goes, without making the host wait for the device."""
    seen = run.meter.look()
    if seen is None:
        return
    if seen.bad_step >= 0 and run.ranks.is_alone:  # ranks look together, at the end of the epoch
        raise diverged(state, run, seen)
    run.log.add("train", seen.means, state.epoch * len(run.objective.loader) + state.step)
    speed = batches_a_second * run.config.batch_size * run.objective.images_per_sample
    bar.set_postfix_str(f"loss {seen.means['loss']:.4f}, {speed:.0f} images/s")


def summary(state: TrainState, run: Run) -> Summary:
    """Sum up the epoch so far over all ranks, and make sure that its loss was finite."""
    found = run.meter.summary(run.ranks)
    if run.ranks.highest(found.bad_step) >= 0:
        raise diverged(state, run, found)
    return found


def diverged(state: TrainState, run: Run, found: Summary) -> Exception:
    """Tell of a loss that is not finite."""
    return divergence(run.objective, run.step.forward, run.training, state.epoch, found, run.folder, run.ranks)


def stop_if_asked(state: TrainState, run: Run) -> None:
    """Save and raise `Interrupted` where a rank was asked to stop."""
    request = run.ranks.highest(run.stop.requested())
    if request:
        save(state, run)
        raise run.stop.interrupted(request, f"{run.folder} is saved {kept(state)}; the same command goes on")


def save(state: TrainState, run: Run, or_go_on: bool = False) -> None:
    """Save everything; with ``or_go_on`` a disk that refuses is a warning, since the run may yet find room.

    Raises:
        InputError: it cannot be written, or the loss was not finite: weights behind such a loss are never saved.
    """
    if state.step:
        summary(state, run)
        state.meter = run.meter.state_dict(run.ranks)
    if run.ranks.is_first:
        with saving(run.folder, or_go_on):
            save_checkpoint(run.folder, state, run.config.to_json())


def kept(state: TrainState) -> str:
    """Say up to where a run is saved."""
    return f"up to epoch {state.epoch + 1}, batch {state.step}" if state.step else f"up to epoch {state.epoch}"


def progress_bar(state: TrainState, run: Run) -> tqdm[None]:
    """Make the bar of an epoch."""
    return tqdm(
        desc=f"epoch {state.epoch + 1}/{run.config.epochs}",
        total=len(run.objective.loader),
        initial=state.step,
        unit="step",
        leave=False,
        disable=None if run.progress else True,
    )


def validate(state: TrainState, run: Run) -> Scores:
    """Score the model as it is now on the run's validation images, each rank a share of them.

    Raises:
        Interrupted: something asked to stop; the epoch's training is saved.
    """
    # BatchNorm's statistics may be each rank's own; the parameters are the same.
    run.ranks.take_firsts(model_to_keep(state).buffers())
    images = watched(run.validation_loader.epoch(0), state, run)
    parts = run.ranks.gather(predict(model_to_keep(state), images, run.device, run.dtype))
    found = Predictions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return score(*found, classes=run.validation.classes, domains=run.validation.domains, split="validation")


def watched(walk: Iterator[dict[str, Tensor]], state: TrainState, run: Run) -> Iterator[dict[str, Tensor]]:
    """Walk validation batches, and stop in between where that is asked for."""
    for batch in walk:
        stop_if_asked(state, run)
        yield batch


def model_to_keep(state: TrainState) -> Classifier:
    """Return the model that is scored and saved: the moving average where there is one."""
    return state.average.model if isinstance(state.average, WeightAverage) else state.model


def finish_epoch(state: TrainState, run: Run, card: ModelCard, means: Mapping[str, float], say: Say) -> None:
    """Validate, keep the model if it is the best so far, and save everything."""
    lr = float(state.scheduler.get_last_lr()[0])
    scores = validate(state, run)
    end_epoch(state.scheduler)
    state.epoch, state.step, state.meter = state.epoch + 1, 0, {}
    is_best = scores.average > state.best_recall
    if is_best:
        state.best_epoch, state.best_recall = state.epoch, scores.average
    by_domain = {name: domain.macro_recall for name, domain in scores.domains.items()}
    broken = len(run.objective.loader.broken)
    state.history.append(
        {
            "epoch": state.epoch,
            "lr": lr,
            **means,
            "broken_images": broken,
            "validation_recall": scores.average,
            "validation": by_domain,
        }
    )
    if run.ranks.is_first:
        # The checkpoint comes last: what is written before it, a run resumed from the older one writes again.
        with saving(run.folder):
            if is_best:
                save_model(run.folder, model_to_keep(state), card)
            write_metrics(run.folder, state.history)
        save(state, run)

    position = state.epoch * len(run.objective.loader)
    run.log.add("train", {**means, "lr": lr}, position)
    run.log.add("validation_recall", {"average": scores.average, **by_domain}, position)
    say(
        f"epoch {state.epoch}/{run.config.epochs}  loss {means['loss']:.4f}  lr {lr:.1e}  "
        f"validation recall {100 * scores.average:.1f} "
        f"(best {100 * state.best_recall:.1f}, epoch {state.best_epoch})  "
        f"{means['images_per_second']:.0f} images/s" + (f"  {broken} broken images replaced" if broken else "")
    )


def is_done(state: TrainState, config: TrainConfig) -> bool:
    """Whether all epochs are done, or as many without a better one as end a run early."""
    waited = state.epoch - state.best_epoch
    return state.epoch >= config.epochs or bool(config.patience and waited >= config.patience)


def train(config: TrainConfig, progress: bool = True) -> Scores:
    """Train a run, or go on with it where it stopped, and score its best model on the test images.

    The same call again resumes from the last checkpoint; on the CPU, with as many threads, to the same
    weights bit for bit as without the interruption. A finished run is left as it is. Under torchrun the
    processes train one model together.

    Args:
        config: the run.
        progress: say what happens on stdout, and show a progress bar on a terminal.

    Returns:
        The test scores by domain of the epoch with the highest mean validation recall.

    Raises:
        InputError: whatever in the input keeps the run from starting, before it starts; the folder holds
            another training; the loss is no longer finite; or a disk is full.
        Interrupted: SIGTERM, Ctrl-C or the time limit stopped it while it trained; everything is saved.
    """
    with deterministic(config.deterministic), open_ranks(config.device) as ranks:
        return train_with(config, ranks, progress and ranks.is_first)


def train_with(config: TrainConfig, ranks: Ranks, progress: bool) -> Scores:
    """Train as one of ``ranks``; see `train`."""
    say: Say = tqdm.write if progress else lambda line: None
    config, manifest = open_manifest(config)
    images = select_images(config, manifest)
    device = pick_device(config.device, None if ranks.is_alone else ranks.local_rank)
    dtype = amp_dtype(config.amp, device)
    check_graph(config, device, dtype, ranks)
    with ranks.first_before_others():
        folder = open_run(config)
    if scores := finished_scores(folder):
        say(f"{folder} is finished: its test scores are in {folder / SCORES_FILE}")
        return scores

    torch.manual_seed(config.seed)
    resuming = has_checkpoint(folder)
    model = start_model(config, manifest.classes, resuming, say)
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
        with ranks.first_before_others():  # which may put the previous checkpoint in a damaged one's place
            resuming = load_checkpoint(folder, state)
        if ranks.rank:  # the ranks' dropouts should differ, and their random states are not kept
            torch.manual_seed(config.seed + ranks.rank * 1_000_003 + state.epoch * 1_009 + state.step)
        if resuming:
            say(f"going on in {folder} after epoch {state.epoch}, step {state.step}")
        if ranks.is_first:
            remove_leftovers(folder)
            check_room(folder, state)
            # A resumed model has its first weights behind it.
            first = {} if resuming else {"first_weights": config.init or model.first_weights}
            with saving(folder):
                write_environment(folder, device, **first)
                objective.record.write(folder)
        meter = Meter(objective.terms, device)
        network = wrap_model(state, config, device, ranks)
        kind = GraphedStep if config.cuda_graph else Step
        step = kind(state, network, objective, config, meter, device, dtype, ranks)
        done = state.epoch * len(objective.loader) + state.step
        log = stack.enter_context(ScalarLog(folder if ranks.is_first else None, done))
        stop = stack.enter_context(StopRequests(config.time_limit))
        trace = stack.enter_context(StepTrace(folder if config.profile and ranks.is_first else None, say))
        run = Run(
            config, folder, device, dtype, ranks, objective, images.training, images.validation, validation_loader,
            meter, step, stop, log, trace, progress,
        )  # fmt: skip
        card = model_card(config, images)
        while not is_done(state, config):
            if state.step == 0:
                stop_if_asked(state, run)
            means = train_one_epoch(state, run)
            finish_epoch(state, run, card, means, say)

    if ranks.is_first:
        with saving(folder):
            write_environment(folder, device, training=training_speed(state.history))
    scores = score_best(config, images, manifest, state, folder, device, ranks)
    say(f"test scores, {images.selection_rule}, epoch {state.best_epoch}:\n{scores}")
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


def score_best(
    config: TrainConfig,
    images: RunImages,
    manifest: Manifest,
    state: TrainState,
    folder: Path,
    device: torch.device,
    ranks: Ranks,
) -> Scores:
    """Score the best epoch's model on the test images of every domain; write down its outputs and the scores."""
    ranks.highest(0)  # until the first has written the model
    share = run_test(config, load_model(folder), manifest, device, ranks.rank, ranks.world)
    outputs = Outputs.join(ranks.gather(share))
    selection = Selection(images.selection_rule, state.best_epoch, state.best_recall)
    scores = replace(score_outputs(outputs), selection=selection)
    if ranks.is_first:
        with saving(folder):
            write_results(folder, outputs, scores)
    return scores
