"""Image files that are missing when a run is resumed are treated as those that vanish while it trains."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fastccsa.data import Manifest
from fastccsa.experiments.plan import make_plan
from fastccsa.system.errors import InputError
from fastccsa.training import loop as loop_module
from fastccsa.training import train


class Killed(BaseException):
    """Simulates the death of the process."""


@pytest.fixture
def config(make_config, manifest_csv, tmp_path):
    """A run on images that a test may modify."""
    copied = shutil.copytree(manifest_csv.parent, tmp_path / "images")
    return replace(make_config(alignment="-", n_sec=0), manifest=str(copied / manifest_csv.name))


@pytest.fixture
def begun(config, monkeypatch):
    """The configuration of a run that died after its first epoch."""
    original = loop_module.train_one_epoch

    def once(state, run):
        if state.epoch:
            raise Killed
        return original(state, run)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "train_one_epoch", once)
        with pytest.raises(Killed):
            train(config, progress=False)
    return config


def training_image(config) -> Path:
    manifest = Manifest.read(config.manifest)
    return Path(manifest.select("train", "HAM").paths[0])


def test_a_resumed_run_replaces_a_missing_image_and_a_fifo(begun, caplog) -> None:
    image = training_image(begun)
    image.unlink()
    os.mkfifo(image)
    assert train(begun, progress=False).selection is not None
    assert str(image) in caplog.text
    epochs = [json.loads(line) for line in (Path(begun.out) / "metrics.jsonl").read_text().splitlines()]
    assert [epoch["broken_images"] for epoch in epochs] == [0, 1]


def test_a_resumed_run_stops_at_a_missing_image_if_asked(begun) -> None:
    image = training_image(begun)
    image.unlink()
    with pytest.raises(InputError, match=rf"{image.name}: No such file.*on_error='replace'"):
        train(replace(begun, broken_images="stop"), progress=False)


def test_a_new_run_names_missing_images_before_it_starts(config) -> None:
    image = training_image(config)
    image.unlink()
    with pytest.raises(InputError, match=rf"no image file .*{image.name}"):
        train(config, progress=False)
    assert not Path(config.out).exists()


def test_a_begun_experiment_can_be_planned_without_an_image(begun, tmp_path) -> None:
    training_image(begun).unlink()
    with pytest.raises(InputError, match="no image file"):
        make_plan(["A"], [0], begun.manifest, tmp_path / "runs")
    folder = tmp_path / "runs" / "A" / "seed0"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    make_plan(["A"], [1], begun.manifest, tmp_path / "runs")
