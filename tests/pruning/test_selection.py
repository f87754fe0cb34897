"""``fastccsa bench selection``: choices of channels without fine-tuning, by every criterion."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from fastccsa.cli import main

CRITERIA = ("dcp", "magnitude", "taylor", "random", "reconstruction", "exact")


def test_what_is_missing_is_measured_and_everything_shown(make_run, tmp_path: Path) -> None:
    run, out = make_run("resnet_basic"), tmp_path / "selection.json"
    options = f"--run {run} --out {out} --images 24 --discrimination-images 12 --random 2 --rate 0.5 --weights "

    def select(weights: str) -> tuple[str, list[dict]]:
        result = CliRunner().invoke(main, ["bench", "selection", *options.split(), weights], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output, json.loads(out.read_text())["rows"]

    _, rows = select("squares")
    assert [(row["criterion"], row["seed"]) for row in rows] == [
        ("all", 0), ("dcp", 0), ("magnitude", 0), ("taylor", 0), ("random", 0), ("random", 1), ("reconstruction", 0),
        ("exact", 0),
    ]  # fmt: skip
    assert rows[0]["agreement"] == 100
    assert len(out.read_text().splitlines()) == len(rows) + 2
    output, more = select("squares,kept")
    assert more[: len(rows)] == rows
    assert {row["weights"] for row in more[len(rows) :]} == {"kept"}
    assert "dcp minus the others" in output
    assert all(output.count(criterion) > 3 for criterion in CRITERIA)


def test_a_single_layer_leaves_the_others_whole(make_run, tmp_path: Path) -> None:
    from types import SimpleNamespace

    from benchmarks.selection import Task

    task = Task(make_run("resnet_basic"), SimpleNamespace(training_images=24, discrimination_images=12))
    row = {"layer": "layer2.0.conv2", "rate": 0.5, "weights": "kept", "criterion": "magnitude", "seed": 0}
    pruned = task.prune(row).backbone
    assert pruned.layer2[0].conv2.in_channels == task.model.backbone.layer2[0].conv2.in_channels // 2
    assert pruned.layer3[0].conv2.in_channels == task.model.backbone.layer3[0].conv2.in_channels
    assert set(task.measure(row)) >= {"seconds", "recall", "loss", "agreement", "gradient", "value", "validation"}
