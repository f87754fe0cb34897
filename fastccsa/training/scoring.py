"""The scores of a run: on the validation images after each epoch, and on the test images at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fastccsa.cards import write_run_card
from fastccsa.evaluation import Candidate, Outputs, Scores, Selection, score, score_outputs
from fastccsa.evaluation.inference import Predictions, collect_outputs, mean_loss, predict
from fastccsa.images import ImageLoader
from fastccsa.models import Classifier, load_model
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import saving, write_last_scores
from fastccsa.runs.images import RunImages
from fastccsa.runs.results import run_outputs, write_results
from fastccsa.runs.selection import ORACLE, oracle
from fastccsa.training.average import model_to_keep
from fastccsa.training.averaging import describe_swad
from fastccsa.training.ranks import Ranks
from fastccsa.training.run import Run, choice, criterion_by_epoch
from fastccsa.training.saving import before_batch, stoppable
from fastccsa.training.swad import Swad
from fastccsa.training.watch import open_share


def open_validation(
    config: TrainConfig, images: RunImages, device: torch.device, ranks: Ranks, pixels: torch.dtype = torch.float32
) -> ImageLoader:
    """Open the loader of this rank's share of the validation images."""
    return open_share(images.validation, config, device, ranks, pixels)


def validate(state: TrainState, run: Run) -> tuple[Scores, float]:
    """Score the current model on the run's validation images, of which each rank takes a share; and return their loss.

    Raises:
        Interrupted: a stop was requested; the epoch's training is saved.
    """
    # The ranks' parameters are equal, but each may have its own BatchNorm statistics.
    run.ranks.copy_from_first(model_to_keep(state).buffers())
    if run.replayed is not None:
        share = run.replayed(model_to_keep(state), lambda: before_batch(state, run))
    else:
        images = stoppable(run.validation_loader.epoch(0), state, run)
        share = predict(model_to_keep(state), images, run.device, run.dtype, run.halved)
    parts = run.ranks.gather(share)
    found = Predictions(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    validation = run.images.validation
    scores = score(*found[:3], classes=validation.classes, domains=validation.domains, split="validation")
    return scores, mean_loss(found)


def score_best(state: TrainState, run: Run) -> Scores:
    """Score the selected epoch's model on the test images of every domain; write its outputs and the scores.

    The outputs on the validation images are written too: thresholds are chosen on them.

    The last epoch's model is scored too, which shows the effect of the selection.
    """
    run.files.wait()  # for the model, and the checkpoint from which a killed run would be scored again
    run.ranks.highest(0)  # a barrier: only the first rank writes
    rule = run.images.selection
    last = Candidate(state.epoch, criterion_by_epoch(state, run, rule)[-1])
    choices: dict[str, Candidate] = {name: choice(state, run, name) for name in run.images.criteria}
    selected = choices[rule]
    if (cheating := oracle(state.history)) is not None:
        choices[ORACLE] = Candidate(*cheating)
    models = [load_model(run.folder)]
    if selected.epoch != last.epoch or isinstance(state.average, Swad):
        models.append(model_to_keep(state))
    tested, validation = test_outputs(models, run), validation_outputs(models[0], run)
    scores, of_last, words = score_outputs(tested[0]), score_outputs(tested[-1]), run.images.selection_rule
    if isinstance(state.average, Swad) and state.average.stretch is not None:
        recalls = {name: domain.macro_recall for name, domain in score_outputs(validation).domains.items()}
        selected = Candidate(state.average.stretch.end + 1, run.images.criterion.mean(recalls))
        words = describe_swad(state.average)
    scores = replace(scores, selection=Selection(words, selected.epoch, selected.recall, choices, last))
    if run.ranks.is_first:
        with saving(run.folder):
            write_last_scores(run.folder, replace(of_last, selection=Selection("last epoch", last.epoch, last.recall)))
            write_results(run.folder, tested[0], validation, scores)
        write_run_card(run.folder)
    return scores


def validation_outputs(model: Classifier, run: Run) -> Outputs:
    """Return the outputs of ``model`` on the run's validation images, those that selected it; each rank takes a share.

    They come from the same cache as during the training, without which they would be decoded again.
    """
    images = run.images.validation
    share = collect_outputs(
        model.to(run.device).to(memory_format=torch.channels_last),
        run.validation_loader.epoch(0),
        run.device,
        run.dtype,
        images,
        "validation",
    )
    row_of = {path: row for row, path in enumerate(run.manifest.paths)}
    rows = np.array([row_of[path] for path in images.paths], np.int64)
    return Outputs.join(run.ranks.gather(replace(share, rows=rows[share.rows])))


def test_outputs(models: Sequence[Classifier], run: Run) -> list[Outputs]:
    """Return the outputs of each model on the test images of every domain, of which each rank takes a share."""
    shares = run_outputs(run.config, models, run.manifest, run.device, run.ranks.rank, run.ranks.world)
    return [Outputs.join(run.ranks.gather(share)) for share in shares]
