"""Training, from top to bottom: `train_one_epoch`, `validate`, `train`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from fastccsa.data import Manifest
from fastccsa.evaluation import Scores, Selection, run_split, score, score_outputs
from fastccsa.evaluation.evaluate import evaluation_loader, predict
from fastccsa.hardware import amp_dtype, autocast, pick_device
from fastccsa.models import Classifier, ModelCard, load_model, save_model
from fastccsa.pipeline import ImageLoader, Transforms
from fastccsa.training.checkpoint import TrainState, has_checkpoint, load_checkpoint, save_checkpoint
from fastccsa.training.config import TrainConfig
from fastccsa.training.images import RunImages, open_manifest, select_images
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import Forward, Objective, build_objective
from fastccsa.training.run import (
    OUTPUTS_FILE,
    SCORES_FILE,
    TENSORBOARD_FOLDER,
    finished_scores,
    open_run,
    training_speed,
    write_environment,
    write_metrics,
    write_scores,
)
from fastccsa.training.schedule import build_optimizer
from fastccsa.training.start import Say, describe, start_model

LOG_EVERY = 20  # steps from one look at the loss to the next: each look waits for the device


@dataclass(frozen=True)
class Run:
    """What stays the same through a run."""

    config: TrainConfig
    folder: Path
    device: torch.device
    dtype: torch.dtype | None
    objective: Objective
    validation: Manifest
    validation_loader: ImageLoader
    writer: SummaryWriter
    progress: bool


def train_one_epoch(state: TrainState, run: Run) -> dict[str, float]:
    """Train from ``state.step`` to the end of ``state.epoch``; the epoch's mean of each loss term.

    What is returned also has the seconds since ``state.step``, and the images a second.

    Raises:
        InputError: the loss is NaN or infinite, or an image cannot be read.
    """
    objective, every = run.objective, run.config.checkpoint_every
    steps = len(objective.loader)
    meter = Meter(objective.terms, run.device)
    if state.meter:
        meter.load_state_dict(state.meter)
    forward = make_forward(state.model, run.device, run.dtype)
    state.model.train()
    bar = tqdm(
        desc=f"epoch {state.epoch + 1}/{run.config.epochs}",
        total=steps,
        initial=state.step,
        unit="step",
        leave=False,
        disable=None if run.progress else True,
    )
    started, seen = time.perf_counter(), 0
    with bar:
        for batch in objective.loader.epoch(state.epoch, state.step):
            terms = objective(forward, batch)
            state.optimizer.zero_grad(set_to_none=True)
            state.scaler.scale(terms[0]).backward()
            state.scaler.step(state.optimizer)
            state.scaler.update()

            samples = len(next(iter(batch.values())))  # a row for each sample, whatever the tensor
            meter.update(terms, samples, state.step)
            state.step += 1
            seen += samples * objective.images_per_sample
            bar.update()
            if state.step % LOG_EVERY == 0 and state.step < steps:
                means = meter.means(state.epoch)
                log_scalars(run.writer, "train", means, state.epoch * steps + state.step)
                speed = seen / (time.perf_counter() - started)
                bar.set_postfix_str(f"loss {means['loss']:.4f}, {speed:.0f} images/s")
            if every and state.step % every == 0 and state.step < steps:
                meter.means(state.epoch)  # so that weights behind a loss that is not finite are never saved
                state.meter = meter.state_dict()
                save_checkpoint(run.folder, state, run.config.to_json())
    means = meter.means(state.epoch)
    seconds = time.perf_counter() - started
    return {**means, "seconds": seconds, "images_per_second": seen / seconds}


def make_forward(model: Classifier, device: torch.device, dtype: torch.dtype | None) -> Forward:
    """Make the function from images to (logits, features) under autocast; both come in one format."""

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(device, dtype):
            logits, features = model(images.contiguous(memory_format=torch.channels_last))
        # Autocast keeps some networks' last normalisation in float32; the loss wants a single format.
        return logits.to(features.dtype), features

    return forward


def validate(state: TrainState, run: Run) -> Scores:
    """Score the model as it is now on the run's validation images."""
    found = predict(state.model, run.validation_loader.epoch(0), run.device, run.dtype)
    return score(*found, classes=run.validation.classes, domains=run.validation.domains, split="validation")


def finish_epoch(state: TrainState, run: Run, card: ModelCard, means: Mapping[str, float], say: Say) -> None:
    """Validate, keep the model if it is the best so far, and save everything."""
    lr = state.scheduler.get_last_lr()[0]
    scores = validate(state, run)
    state.scheduler.step()
    state.epoch, state.step, state.meter = state.epoch + 1, 0, {}
    if scores.average > state.best_recall:
        state.best_epoch, state.best_recall = state.epoch, scores.average
        save_model(run.folder, state.model, card)

    by_domain = {name: domain.macro_recall for name, domain in scores.domains.items()}
    state.history.append(
        {
            "epoch": state.epoch,
            "lr": lr,
            **means,
            "validation_recall": scores.average,
            "validation": by_domain,
        }
    )
    # The checkpoint comes last: what is written before it, a run resumed from the older one writes again.
    write_metrics(run.folder, state.history)
    save_checkpoint(run.folder, state, run.config.to_json())

    log_scalars(run.writer, "train", {**means, "lr": float(lr)}, state.epoch * len(run.objective.loader))
    recalls = {"average": scores.average, **by_domain}
    log_scalars(run.writer, "validation_recall", recalls, state.epoch * len(run.objective.loader))
    say(
        f"epoch {state.epoch}/{run.config.epochs}  loss {means['loss']:.4f}  lr {lr:.1e}  "
        f"validation recall {100 * scores.average:.1f} "
        f"(best {100 * state.best_recall:.1f}, epoch {state.best_epoch})  "
        f"{means['images_per_second']:.0f} images/s"
    )


def log_scalars(writer: SummaryWriter, group: str, values: Mapping[str, float], step: int) -> None:
    """Write ``values`` for TensorBoard under ``group``, at the run's step ``step``."""
    for name, value in values.items():
        writer.add_scalar(f"{group}/{name}", value, step)


def train(config: TrainConfig, progress: bool = True) -> Scores:
    """Train a run, or go on with it where it stopped, and score its best model on the test images.

    The same call again resumes from the last checkpoint; on the CPU, with as many threads, to the same
    weights bit for bit as without the interruption. A finished run is left as it is.

    Args:
        config: the run.
        progress: say what happens on stdout, and show a progress bar on a terminal.

    Returns:
        The test scores by domain of the epoch with the highest mean validation recall.

    Raises:
        InputError: whatever in the input keeps the run from starting, before it starts; the folder holds
            another training; or the loss is no longer finite.
    """
    say: Say = tqdm.write if progress else lambda line: None
    config, manifest = open_manifest(config)
    images = select_images(config, manifest)
    device = pick_device(config.device)
    dtype = amp_dtype(config.amp, device)
    folder = open_run(config)
    if scores := finished_scores(folder):
        say(f"{folder} is finished: its test scores are in {folder / SCORES_FILE}")
        return scores

    torch.manual_seed(config.seed)
    resuming = has_checkpoint(folder)
    model = start_model(config, manifest.classes, resuming, say)
    model.to(device).to(memory_format=torch.channels_last)
    optimizer, scheduler = build_optimizer(config, model)
    scaler = GradScaler(device.type, enabled=dtype == torch.float16)
    state = TrainState(model, optimizer, scheduler, scaler)
    with ExitStack() as stack:
        objective = build_objective(config, images, device, model.feature_width)
        state.memory = objective.memory
        stack.enter_context(objective.loader)
        validation_loader = stack.enter_context(
            evaluation_loader(
                images.validation,
                device,
                config.size,
                workers=config.workers,
                image_backend=config.image_backend,
                cache=config.image_cache,
            )
        )
        say(describe(config, images, model, device))
        if load_checkpoint(folder, state):
            say(f"going on in {folder} after epoch {state.epoch}, step {state.step}")
        # A resumed model has its first weights behind it.
        first = {} if resuming else {"first_weights": config.init or model.first_weights}
        write_environment(folder, device, **first)
        objective.record.write(folder)
        done = state.epoch * len(objective.loader) + state.step
        writer = stack.enter_context(SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=done + 1))
        run = Run(config, folder, device, dtype, objective, images.validation, validation_loader, writer, progress)
        card = model_card(config, images)
        while state.epoch < config.epochs:
            means = train_one_epoch(state, run)
            finish_epoch(state, run, card, means, say)

    write_environment(folder, device, training=training_speed(state.history))
    scores = score_best(config, images, manifest, state, folder, device)
    say(f"test scores, {images.selection_rule}, epoch {state.best_epoch}:\n{scores}")
    return scores


def model_card(config: TrainConfig, images: RunImages) -> ModelCard:
    """Write down what one must know to use this run's model."""
    transforms = Transforms(size=config.size)
    return ModelCard(
        backbone=config.backbone,
        classes=images.training.classes,
        domains=images.domains,
        size=config.size,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def score_best(
    config: TrainConfig,
    images: RunImages,
    manifest: Manifest,
    state: TrainState,
    folder: Path,
    device: torch.device,
) -> Scores:
    """Score the best epoch's model on the test images of every domain; write down its outputs and the scores."""
    outputs = run_split(
        load_model(folder),
        manifest,
        device,
        size=config.size,
        amp=config.amp,
        workers=config.workers,
        image_backend=config.image_backend,
    )
    outputs.write(folder / OUTPUTS_FILE)
    selection = Selection(images.selection_rule, state.best_epoch, state.best_recall)
    scores = replace(score_outputs(outputs), selection=selection)
    write_scores(folder, scores)
    return scores
