"""The results of a run: the outputs of its model on the test and validation images, and the test scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from fastccsa.collections import Manifest
from fastccsa.evaluation import Outputs, Scores
from fastccsa.evaluation.evaluate import run_split_of
from fastccsa.models import Classifier
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import OUTPUTS_FILE, VALIDATION_OUTPUTS_FILE, write_scores


def run_outputs(
    config: TrainConfig,
    models: Sequence[Classifier],
    manifest: Manifest,
    device: str | torch.device,
    rank: int = 0,
    world_size: int = 1,
    split: str = "test",
) -> list[Outputs]:
    """Run each of ``models`` on this rank's share of a split's images of every domain, as ``config`` says.

    Images are decoded even if the run caches crops, which differ a little: scores do not depend on the cache.
    """
    return run_split_of(
        models,
        manifest,
        device,
        split=split,
        size=config.size,
        amp=config.amp,
        workers=config.workers,
        image_backend=config.image_backend,
        rank=rank,
        world_size=world_size,
    )


def write_results(folder: Path, outputs: Outputs, validation: Outputs, scores: Scores) -> None:
    """Write outputs and scores into a run folder; the scores are last, because they mark the run as finished."""
    validation.write(folder / VALIDATION_OUTPUTS_FILE)
    outputs.write(folder / OUTPUTS_FILE)
    write_scores(folder, scores)
