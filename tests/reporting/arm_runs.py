"""Finished runs of arms, whose recalls are given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastccsa.evaluation import Outputs, Selection, score_outputs
from fastccsa.evaluation.outputs import make_outputs
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import OUTPUTS_FILE, open_run, write_metrics, write_scores

CLASSES = ("nv", "mel", "bcc")
NAMES = ("HAM", "MSK", "UDA", "SON")


def write_arm(runs: Path, arm: str, seed: int, right: Mapping[str, int], rows: int = 0, **settings: Any) -> Outputs:
    """Write a finished run: 8 test images of each class and domain, a given number of them right in each.

    SON shows one class, the others three. The first test image has the row ``rows``.
    """
    cells = [(d, c) for d, name in enumerate(NAMES) for c in range(3 if name != "SON" else 1)]
    domains, targets = np.repeat(cells, 8, axis=0).T
    number = np.tile(np.arange(8), len(cells))
    is_right = number < np.array([right[NAMES[d]] for d in domains])
    logits = np.eye(3)[np.where(is_right, targets, (targets + 1) % 3)]
    random = np.random.default_rng(seed)
    outputs = make_outputs(
        targets, domains, np.arange(rows, rows + len(targets)), logits, 10 * random.normal(size=(len(targets), 5)),
        classes=CLASSES, domain_names=NAMES, split="test",
    )  # fmt: skip
    config = TrainConfig(out=str(runs / arm / f"seed{seed}"), seed=seed, epochs=3, **settings)
    folder = open_run(config)
    outputs.write(folder / OUTPUTS_FILE)
    terms = {"loss": 4.0} | ({} if config.is_baseline else {"alignment": 1.5, "separation": 0.5})
    epoch = {"validation": {}, "validation_recall": 0.5, "seconds": 30.0, "images_per_second": 9.0, **terms}
    write_metrics(folder, [{"epoch": number, **epoch, "loss": 99.0 * (number < 2) + 4.0} for number in (1, 2)])
    scores = score_outputs(outputs)
    write_scores(folder, type(scores)("test", CLASSES, scores.domains, Selection("highest", 1 + seed, 0.5)))
    return outputs
