"""Pruning a run, from top to bottom: `choose_channels` stage by stage, then fine-tuning of the pruned network."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastccsa.cards import complete_run_card, write_run_card
from fastccsa.collections import Manifest
from fastccsa.evaluation import Scores, score_outputs
from fastccsa.models import Classifier, ModelCard, load_model, save_model
from fastccsa.pruning.config import PruneConfig
from fastccsa.pruning.finetune import fine_tune_stage
from fastccsa.pruning.layer import BlockInputs, channels_by_rate, prune_layer
from fastccsa.pruning.record import PRUNE_FILE, PruneRecord
from fastccsa.pruning.remove import require_torch_pruning
from fastccsa.pruning.resnet import (
    AuxiliaryHead,
    Stage,
    block_width,
    blocks_of,
    check_architecture,
    convolution,
    prunable_layers,
    stages_of,
)
from fastccsa.pruning.state import STATE_FILE, PruneState, SavedState, check_same, load_state, save_state
from fastccsa.pruning.subset import Subset, default_images, load_subset
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import SCORES_FILE, finished_scores, open_run, write_environment
from fastccsa.runs.images import RunImages, open_manifest, select_images
from fastccsa.runs.locks import lock_run
from fastccsa.runs.results import run_outputs, write_results
from fastccsa.runs.sampling_record import SAMPLING_FILE, SamplingRecord
from fastccsa.runs.used_images import check_manifest
from fastccsa.system.devices import pick_device
from fastccsa.system.errors import InputError
from fastccsa.system.files import remove_leftovers
from fastccsa.system.progress import Say, status_lines
from fastccsa.training import build_objective, train

SELECTED_FOLDER = "selected"


def prune(
    run: str | os.PathLike[str],
    out: str | os.PathLike[str],
    threshold: float | None = None,
    rate: float | None = None,
    progress: bool = True,
    **options: Any,
) -> Scores:
    """Prune channels of a trained run and fine-tune the rest. The result is an ordinary run with a smaller network.

    The same call resumes after the last finished layer, or where the fine-tuning stopped. Besides the files of a run,
    ``out`` contains ``prune.json`` (what was chosen, layer by layer) and ``selected/``, the run before fine-tuning.

    Args:
        run: folder of a finished run of a torchvision ResNet.
        out: folder for the pruned run.
        threshold: the adaptive stop (see `PruneConfig`); or give ``rate``.
        rate: share of the channels to remove from every layer.
        progress: print status lines on stdout, and show progress bars on a terminal.
        options: the other fields of `PruneConfig`.

    Returns:
        Test scores by domain after fine-tuning.

    Raises:
        InputError: a value is out of range, there is no finished run, the architecture cannot be pruned, a layer would
            lose all channels, torch-pruning is missing, or ``out`` is used for something else or by another process.
    """
    try:
        config = PruneConfig(os.fspath(run), os.fspath(out), threshold=threshold, rate=rate, **options)
    except TypeError as error:
        raise InputError(f"these are not settings of a pruning: {error}") from error
    say = status_lines(progress)
    require_torch_pruning()
    training, manifest, model = open_source(config)
    config = replace(config, seed=training.seed)
    device = pick_device(config.device)
    check_architecture(model)
    check_rate(config, model)
    stages_of(model, config.auxiliary)
    images = select_images(training, manifest)
    with lock_run(Path(config.out)):
        folder = _open_folder(config, training)
        if scores := finished_scores(folder):
            complete_run_card(folder)
            say(f"{folder} is finished: its channels are in {folder / PRUNE_FILE}, its test scores in {SCORES_FILE}")
            return scores

        remove_leftovers(folder)
        selected = folder / SELECTED_FOLDER
        if finished_scores(selected) is None:
            write_environment(folder, device)
            record = choose_channels(config, training, images, model.to(device), say, progress)
            _write_selected(config, training, manifest, model, record, say)
        (folder / STATE_FILE).unlink(missing_ok=True)  # also that of a process that was killed just before this
        if scores := finished_scores(selected):
            complete_run_card(selected)
            say(f"test scores before fine-tuning:\n{scores}")
        return train(training, progress)


def open_source(config: PruneConfig) -> tuple[TrainConfig, Manifest, Classifier]:
    """Read the run to prune: the configuration of the fine-tuning, the manifest, and the model.

    Raises:
        InputError: there is no finished run, its manifest or its margin is missing, its manifest changed, or images to
            score were trained on.
    """
    run, out = Path(config.run), Path(config.out)
    model = load_model(run)
    source = TrainConfig.read(run)
    if finished_scores(run) is None:
        raise InputError(f"the run in {run} is not finished: repeat its training command before pruning it")
    training = replace(
        source,
        manifest=config.manifest or source.manifest,
        out=str(out),
        init=os.path.abspath(out / SELECTED_FOLDER),
        weights="none",
        epochs=config.epochs or source.epochs,
        lr=config.lr or source.lr,
        fraction=config.fraction or source.fraction,
        lr_step=math.ceil((config.epochs or source.epochs) / 2),
        seed=source.seed if config.seed is None else config.seed,
        device=config.device,
        workers=config.workers,
        **_same_margin(run, source),
    )
    training, manifest = open_manifest(training)
    check_manifest(run, config.manifest, manifest, ("validation", "test"), config.allow_changed_manifest)
    return training, manifest, model


def _same_margin(run: Path, source: TrainConfig) -> dict[str, Any]:
    """Return the settings that keep the margin of the run, which is a multiple of a distance before its training.

    Raises:
        InputError: the run does not record it.
    """
    if source.is_baseline or source.margin_unit != "median":
        return {}
    record = SamplingRecord.read(run)
    if record is None or record.margin is None:
        raise InputError(
            f"{run / SAMPLING_FILE} does not have the run's margin, which fine-tuning uses: train the run again"
        )
    return {"margin": record.margin, "margin_unit": "feature"}


def check_rate(config: PruneConfig, model: Classifier) -> None:
    """Check that the rate leaves every layer at least one channel.

    Raises:
        InputError: a layer would lose all; the message names the first one.
    """
    if config.rate is None:
        return
    for layer in prunable_layers(model):
        channels = convolution(model, layer).in_channels
        if channels_by_rate(config, channels) == 0:
            raise InputError(
                f"rate {config.rate} removes all {channels} input channels of {layer.name}: choose a lower one"
            )


def choose_channels(
    config: PruneConfig,
    training: TrainConfig,
    images: RunImages,
    model: Classifier,
    say: Say,
    progress: bool,
) -> PruneRecord:
    """Choose the channels of every layer of ``model``, stage by stage, and remove the others.

    If ``config.out`` contains an interrupted pruning, it continues after the last finished layer.
    """
    folder, device = Path(config.out), model.head.weight.device
    saved = load_state(folder, config)
    original = copy.deepcopy(model)
    stages, total = stages_of(model, config.auxiliary), len(prunable_layers(model))
    subset = load_subset(
        training,
        images,
        count=config.images or default_images(training.size),
        discrimination=config.discrimination_images,
        seed=training.seed,
        device=device,
        width=model.feature_width,
    )
    say(f"choosing the channels of {total} layers by {config.criterion}, on {len(subset.images)} images")
    if saved:
        check_stage(saved, stages)
    first, records = (saved.stage, list(saved.records)) if saved else (0, [])
    for number, stage in enumerate(stages[first:], start=first):
        torch.manual_seed(training.seed + number)  # the same head after resuming
        name, block = blocks_of(model)[stage.end]
        head = None if stage.is_last else AuxiliaryHead(block_width(block), model.head.out_features).to(device)
        state = PruneState(model, copy.deepcopy(model), head, number, records)
        if saved and number == first:
            saved.fill(state)
            say(f"resuming {folder} after {len(records)} of {total} layers")
        else:
            say(f"stage {number + 1}/{len(stages)}: fine-tuning with the loss after {name}")
            _fine_tune(config, training, images, state, stage, progress)
            save_state(folder, state, config)
        prune_stage(state, stage, subset, config, say, progress)
    return PruneRecord.of(config, records, original, model, training.size)


def check_stage(saved: SavedState, stages: Sequence[Stage]) -> None:
    """Check that a saved state belongs to the stages of this network.

    Raises:
        InputError: it has more stages, or layers of which none is pruned up to its stage.
    """
    names = {layer.name for stage in stages[: saved.stage + 1] for layer in stage.layers}
    if saved.stage >= len(stages) or not names.issuperset(record.name for record in saved.records):
        raise InputError(
            f"{saved.file} cannot be resumed from (its stage {saved.stage + 1} is not one of this network's "
            f"{len(stages)}, or has other layers); remove it to choose the channels again"
        )


def prune_stage(state: PruneState, stage: Stage, subset: Subset, config: PruneConfig, say: Say, progress: bool) -> None:
    """Prune the remaining layers of a stage, and save the state after each."""
    done = {record.name for record in state.records}
    inputs = BlockInputs(state.model, state.baseline, subset.images)
    for layer in stage.layers:
        if layer.name in done:
            continue
        record = prune_layer(state, stage, layer, inputs, subset, config, progress)
        state.records.append(record)
        save_state(Path(config.out), state, config)
        say(f"{record.name}: {len(record.kept)} of {record.channels} channels kept ({record.seconds:.0f} s)")


def _fine_tune(
    config: PruneConfig, training: TrainConfig, images: RunImages, state: PruneState, stage: Stage, progress: bool
) -> None:
    """Fine-tune the network and the stage's head; the result is also the baseline of the stage's layers."""
    # A stage is too short to fill a memory of past features.
    plain, model = replace(training, memory=0), state.model
    objective = build_objective(plain, images, model.head.weight.device, model.feature_width)
    first = state.stage * config.stage_epochs
    with objective.loader:
        epochs = range(first, first + config.stage_epochs)
        fine_tune_stage(state.model, state.head, stage, objective, training, epochs, progress)
    state.baseline = copy.deepcopy(state.model)


def _open_folder(config: PruneConfig, training: TrainConfig) -> Path:
    """Open ``config.out``: create it, or reopen the folder in which the same pruning was started.

    Raises:
        InputError: it holds another run, or another pruning.
    """
    folder = Path(config.out)
    if (folder / PRUNE_FILE).exists():
        check_same(config, PruneRecord.read(folder).config, folder)
    return open_run(training)


def _write_selected(
    config: PruneConfig, training: TrainConfig, manifest: Manifest, model: Classifier, record: PruneRecord, say: Say
) -> None:
    """Write the pruned network as a finished run, scored before any fine-tuning."""
    folder = Path(config.out)
    selected = open_run(replace(training, out=training.init or "", init=os.path.abspath(config.run)))
    save_model(selected, model, ModelCard.read(config.run))
    record.write(folder)
    say(record.summary())
    outputs, validation = (
        run_outputs(training, [model], manifest, config.device, split=split)[0] for split in ("test", "validation")
    )
    write_results(selected, outputs, validation, score_outputs(outputs))
    write_run_card(selected)
