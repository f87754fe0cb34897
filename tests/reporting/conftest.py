"""Artificial run folders: small confusion matrices, whose recalls can be computed by hand."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastccsa.evaluation import DomainScores, Scores, Selection
from fastccsa.training import TrainConfig

sys.path.insert(0, str(Path(__file__).parent))  # for the helpers, because pytest's importlib mode does not add it

from experiment_runs import write_experiment, write_manifest

WriteRun = Callable[..., Path]

CLASSES = ("nv", "mel", "bcc")
CONFUSIONS: dict[str, list[list[int]]] = {
    "UDA": [[7, 2, 0], [1, 5, 0], [0, 0, 0]],
    "HAM": [[50, 3, 1], [4, 20, 0], [2, 2, 9]],
}
HISTORY: list[dict[str, Any]] = [
    {
        "epoch": epoch,
        "lr": 1e-4,
        "loss": loss,
        "classification1": 0.7 * loss,
        "classification2": 0.8 * loss,
        "alignment": 5.0 * loss,
        "separation": 30.0 - loss,
        "validation_recall": 0.1 * epoch,
        "validation": {"HAM": 0.12 * epoch, "UDA": 0.08 * epoch},
    }
    for epoch, loss in enumerate((2.5, 1.25, 1.5, 0.5), start=1)
]


def recalls(confusion: Sequence[Sequence[int]]) -> list[float | None]:
    return [row[i] / sum(row) if sum(row) else None for i, row in enumerate(confusion)]


def macro_recall(confusion: Sequence[Sequence[int]]) -> float:
    present = [recall for recall in recalls(confusion) if recall is not None]
    return sum(present) / len(present)


@pytest.fixture
def history() -> list[dict[str, Any]]:
    return HISTORY


@pytest.fixture
def confusions() -> dict[str, list[list[int]]]:
    return CONFUSIONS


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Return a function that writes the files of a training into ``tmp_path/runs/<name>``."""

    def write(
        name: str,
        confusions: Mapping[str, Sequence[Sequence[int]]] = CONFUSIONS,
        history: Sequence[Mapping[str, Any]] = HISTORY,
        split: str = "test",
        **config: Any,
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        domains = {
            domain: DomainScores(
                count=sum(map(sum, confusion)),
                macro_recall=macro_recall(confusion),
                recall=tuple(recalls(confusion)),
                confusion=tuple(map(tuple, confusion)),
            )
            for domain, confusion in confusions.items()
        }
        selection = Selection("highest mean validation recall", epoch=3, recall=0.3)
        (folder / "config.json").write_text(TrainConfig(**config).to_json())
        (folder / "scores.json").write_text(Scores(split, CLASSES, domains, selection).to_json())
        (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
        return folder

    return write


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiments A (seeds 0 and 1) and K (seed 0); tests must not change it."""
    folder = tmp_path_factory.mktemp("experiments")
    manifest = write_manifest(folder / "images")
    for letter, seed in (("A", 0), ("A", 1), ("K", 0)):
        write_experiment(folder / "runs", manifest, letter, seed)
    return folder / "runs"
