"""The results of a run: the outputs of its model on the test and validation images, and the test scores."""

from __future__ import annotations

from pathlib import Path

import torch

from fastccsa.collections import Manifest
from fastccsa.evaluation import Outputs, Scores, run_split
from fastccsa.models import Classifier
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import OUTPUTS_FILE, VALIDATION_OUTPUTS_FILE, write_scores


def run_outputs(
    config: TrainConfig,
    model: Classifier,
    manifest: Manifest,
    device: str | torch.device,
    rank: int = 0,
    world_size: int = 1,
    split: str = "test",
) -> Outputs:
    """Run ``model`` on this rank's share of a split's images of every domain, with the settings of ``config``."""
    return run_split(
        model,
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
