"""Every text file of a run, with content that is wrong in each way, gives an error that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fastccsa.evaluation import DomainScores, Scores, Selection
from fastccsa.models import ModelCard
from fastccsa.pruning.config import PruneConfig
from fastccsa.pruning.record import PruneRecord, Size
from fastccsa.pruning.state import LayerRecord
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import read_environment, write_environment
from fastccsa.runs.records import read_runs
from fastccsa.runs.sampling_record import SamplingRecord
from fastccsa.runs.used_images import _used_images
from fastccsa.system.errors import InputError

EPOCH = {"epoch": 1, "loss": 0.5, "validation": {"HAM": 0.5}, "validation_recall": 0.5}
SCORES = Scores("test", ("nv", "mel"), {"HAM": DomainScores(2, 0.5, (0.5, None), ((1, 1), (0, 0)))})
LAYER = LayerRecord("layer", 4, (0, 3), (1.0, 0.5), (1.0, 0.25), 2.0)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with every text file of a run."""
    config = PruneConfig("a", "b", rate=0.5)
    pruning = PruneRecord(asdict(config), (LAYER,), Size(9, 9), Size(5, 5))
    pruning.write(tmp_path)
    SamplingRecord(("nv", "mel"), ("HAM",), ((3, 4),), (0.5, 0.5)).write(tmp_path)
    card = ModelCard("resnet18", ("nv", "mel"), ("HAM",), 32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    (tmp_path / "model.json").write_text(json.dumps(asdict(card)))
    (tmp_path / "config.json").write_text(TrainConfig().to_json())
    (tmp_path / "scores.json").write_text(SCORES.to_json())
    (tmp_path / "scores_last.json").write_text(SCORES.to_json())
    (tmp_path / "metrics.jsonl").write_text(json.dumps(EPOCH) + "\n")
    (tmp_path / "environment.json").write_text('{"device": "cpu"}')
    (tmp_path / "images.csv").write_text("image,split\na.jpg,train\n")
    return tmp_path


READERS: dict[str, Callable[[Path], Any]] = {
    "config.json": TrainConfig.read,
    "environment.json": lambda run: read_environment(run / "environment.json"),
    "metrics.jsonl": read_runs,
    "scores.json": read_runs,
    "scores_last.json": read_runs,
    "sampling.json": SamplingRecord.read,
    "model.json": ModelCard.read,
    "prune.json": PruneRecord.read,
    "images.csv": _used_images,
}
BROKEN = {
    "not UTF-8": b"\xff\xfe{",
    "nested deeply": b'{"a":' * 100_000,
    "cut": b'{"a": 1',
    "a list": b"[]",
    "text": b'"text"',
    "an empty object": b"{}",
    "other fields": b'{"a": {"b": null}}',
    "a control character": b"\0",
}


@pytest.mark.parametrize("name", READERS)
def test_the_files_can_be_read(run: Path, name: str) -> None:
    assert READERS[name](run)


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_named(run: Path, name: str, how: str) -> None:
    if (name == "environment.json" and how in ("an empty object", "other fields")) or (
        name == "config.json" and how == "an empty object"
    ):
        return  # every field may be missing, or may be anything
    (run / name).write_bytes(BROKEN[how])
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
        READERS[name](run)
    assert "\n" not in str(caught.value)
    assert any(word in str(caught.value) for word in ("remove", "restore", "train", "prune", "repeat"))


@pytest.mark.parametrize("name", READERS)
def test_a_folder_in_the_place_of_a_file_is_named(run: Path, name: str) -> None:
    (run / name).unlink()
    (run / name).mkdir()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        READERS[name](run)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("config.json", ["exclude"], "HAM"),
        ("config.json", ["epochs"], True),
        ("config.json", ["lr"], "fast"),
        ("config.json", ["seed"], 1.5),
        ("config.json", ["manifest"], "a\0b"),
        ("config.json", ["margin"], float("inf")),
        ("metrics.jsonl", ["validation"], []),
        ("metrics.jsonl", ["validation", "HAM"], "high"),
        ("metrics.jsonl", ["loss"], None),
        ("metrics.jsonl", ["epoch"], 0),
        ("metrics.jsonl", ["seconds"], "long"),
        ("scores.json", ["classes"], "nv"),
        ("scores.json", ["domains"], {}),
        ("scores.json", ["domains", "HAM", "count"], "2"),
        ("scores.json", ["domains", "HAM", "recall"], [0.5]),
        ("scores.json", ["domains", "HAM", "confusion"], [[1, 1]]),
        ("scores.json", ["selection"], {"rule": "", "epoch": 1}),
        ("scores_last.json", ["domains", "HAM", "macro_recall"], 50),
        ("sampling.json", ["counts"], [[3]]),
        ("sampling.json", ["first"], [0.5, "half"]),
        ("sampling.json", ["joint"], [[1.0, 2.0], [3.0]]),
        ("model.json", ["classes"], ["nv", "nv"]),
        ("model.json", ["classes"], []),
        ("model.json", ["std"], [0.5, 0.5, 0.0]),
        ("model.json", ["mean"], 0.5),
        ("model.json", ["size"], 10**9),
        ("model.json", ["layers"], {"conv1": 3}),
        ("prune.json", ["layers"], {}),
        ("prune.json", ["layers", 0, "kept"], [0, 0]),
        ("prune.json", ["layers", 0, "kept"], [4]),
        ("prune.json", ["config", "stop"], "never"),
        ("prune.json", ["before"], {"parameters": -1, "multiply_adds": 0}),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_range_is_named(run: Path, name: str, path: list[Any], value: Any) -> None:
    content = json.loads((run / name).read_text())
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (run / name).write_text(json.dumps(content) + "\n")
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        READERS[name](run)


@pytest.mark.parametrize(
    "row", [",train", "a.jpg", "a.jpg,test", "a.jpg,train,more", '"open', "x" * 200_000 + ",train"]
)
def test_a_broken_row_of_the_used_images_is_named(run: Path, row: str) -> None:
    (run / "images.csv").write_text(f"image,split\n{row}\n")
    with pytest.raises(InputError, match=r"images\.csv does not list"):
        _used_images(run)


def test_a_broken_environment_does_not_stop_a_run(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    import torch

    (run / "environment.json").write_bytes(b"\xff")
    write_environment(run, torch.device("cpu"))
    assert "environment.json is not a record" in caplog.text
    assert json.loads((run / "environment.json").read_text())["device"] == "cpu"


def test_scores_of_older_versions_are_read() -> None:
    values = json.loads(SCORES.to_json())
    del values["selection"]
    assert Scores.from_json(json.dumps(values)) == SCORES
    chosen = Selection("rule", 2, 0.5)
    values["selection"] = {"rule": "rule", "epoch": 2, "recall": 0.5}
    found = Scores.from_json(json.dumps(values)).selection
    assert found == chosen
