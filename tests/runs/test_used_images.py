"""A manifest that changed since a run is named, and no image that was trained on is scored as a test image."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastccsa.cli import main
from fastccsa.collections import Manifest
from fastccsa.models import ModelCard, build_model, save_model
from fastccsa.runs.folder import open_run
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.runs.used_images import IMAGES_FILE, check_manifest, write_used_images
from fastccsa.system.errors import InputError
from fastccsa.training import TrainConfig

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture
def own(manifest_csv: Path, tmp_path: Path) -> Path:
    """A copy of the images (45 for training, 18 for validation, 18 for testing) and their manifest, to be changed."""
    shutil.copytree(manifest_csv.parent, tmp_path / "data")
    return tmp_path / "data" / manifest_csv.name


def run_on(manifest: Path, make_config: MakeConfig, name: str = "run", **changes) -> Path:
    """Make the run folder of a training, with a model that was not trained."""
    config, images = open_manifest(replace(make_config(name, **changes), manifest=str(manifest)))
    folder = open_run(config)
    chosen = select_images(config, images)
    write_used_images(folder, config, chosen)
    model = build_model(config.backbone, len(images.classes), weights="none")
    save_model(
        folder, model, ModelCard(config.backbone, images.classes, images.domains, config.size, (0.5,) * 3, (0.5,) * 3)
    )
    return folder


def swap(manifest: Path, *rows: int, out: Path | None = None) -> Path:
    """Let the first training images and as many test images change places."""
    images = Manifest.read(manifest)
    split = images.table["split"].copy()
    for name, new in (("train", "test"), ("test", "train")):
        split.iloc[(images.table["split"] == name).to_numpy().nonzero()[0][list(rows)]] = new
    Manifest(images.table.assign(split=split), manifest.parent).write(out or manifest)
    return out or manifest


def check(run: Path, manifest: Path | None, own: Path, split: str = "test", allow: bool = False) -> None:
    check_manifest(run, manifest, Manifest.read(manifest or own), [split], allow)


def test_an_unchanged_manifest_passes_wherever_it_lies(own: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    run = run_on(own, make_config)
    check(run, None, own)
    shutil.copytree(own.parent, tmp_path / "copy")
    check(run, tmp_path / "copy" / own.name, own)


def test_a_changed_manifest_is_refused_with_the_images_trained_on(
    own: Path, make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_on(own, make_config)
    swap(own, 0, 1, 2)
    message = f"the manifest {own} changed since the run in {run}: 3 of its 18 test images were trained on"
    with pytest.raises(InputError) as caught:
        check(run, None, own)
    assert str(caught.value) == f"{message}; restore it, or add --allow-changed-manifest to go on"
    with caplog.at_level(logging.WARNING, "fastccsa.runs"):
        check(run, None, own, allow=True)
    assert [record.getMessage() for record in caplog.records] == [message]
    with pytest.raises(InputError, match=r"changed since .*: none of the images to score was trained on"):
        check(run, None, own, split="train")


def test_images_that_selected_the_model_count_as_well(own: Path, make_config: MakeConfig) -> None:
    run = run_on(own, make_config)
    table = Manifest.read(own).table
    Manifest(table.assign(split=table["split"].replace({"validation": "test"})), own.parent).write(own)
    with pytest.raises(InputError, match=r"18 of its 36 test images were used to select the model"):
        check(run, None, own)


def test_another_manifest_is_refused_only_with_images_trained_on(
    own: Path, make_config: MakeConfig, manifest_csv: Path, tmp_path: Path
) -> None:
    run = run_on(own, make_config, n_sec=2)  # 2 of 5 training images of each class of the secondary domains
    other = swap(own, *range(45)[:18], out=own.with_name("other.csv"))
    trained = select_images(TrainConfig.read(run), Manifest.read(own)).training.paths
    expected = len(set(trained) & set(Manifest.read(other).select("test").paths))
    assert 0 < expected < 18
    with pytest.raises(
        InputError, match=rf"is not that of the run in .*: {expected} of its 18 test images were trained"
    ):
        check(run, other, own)
    check(run, swap(manifest_csv, 0, out=tmp_path / "same names elsewhere.csv"), own)


def test_images_moved_with_their_manifest_are_recognised(own: Path, make_config: MakeConfig, tmp_path: Path) -> None:
    run = run_on(own, make_config)
    shutil.move(own.parent, tmp_path / "moved")
    moved = swap(tmp_path / "moved" / own.name, 0, 1)
    with pytest.raises(InputError, match="2 of its 18 test images were trained on"):
        check(run, moved, own)


def test_the_images_of_the_first_weights_count_as_trained_on(
    own: Path, make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_on(own, make_config, "first")
    swap(own, 0, 1)
    second = run_on(own, make_config, "second", init=str(first))
    pruned = open_run(replace(TrainConfig.read(second), out=str(second.with_name("pruned")), init=str(second)))
    swap(own, 5)  # one image that both trained on; the second trains on all images but those that only the first has
    for run in (second, pruned):
        with pytest.raises(InputError, match=r"\d+ of its 18 test images were trained on"):
            check(run, None, own)
    assert len((second / IMAGES_FILE).read_text().splitlines()) == 1 + 45 + 2 + 18


def test_a_run_without_a_list_of_its_images_is_not_trusted(
    own: Path, make_config: MakeConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    run = run_on(own, make_config)
    (run / IMAGES_FILE).unlink()
    check(run, None, own)
    other = swap(own, 0, out=tmp_path / "other.csv")
    with caplog.at_level(logging.WARNING, "fastccsa.runs"):
        check(run, other, own)
    assert "the run has no images.csv, so its test images may have been trained on" in caplog.text
    swap(own, 0)
    with pytest.raises(InputError, match=r"changed since .*: the run has no images.csv"):
        check(run, None, own)


@pytest.mark.parametrize("command", ["evaluate --device cpu", "export --quantize int8 {run}/x.onnx"])
def test_the_commands_refuse_a_changed_manifest(own: Path, make_config: MakeConfig, command: str) -> None:
    run = run_on(own, make_config)
    swap(own, 0, 1, 2)
    name, *options = command.format(run=run).split()
    done = CliRunner().invoke(main, [name, "--run", str(run), *options])
    assert done.exit_code == 2
    assert "3 of its 18 test images were trained on; restore it, or add --allow-changed-manifest" in done.stderr
    if name == "evaluate":
        done = CliRunner().invoke(main, [name, "--run", str(run), *options, "--allow-changed-manifest"])
        assert done.exit_code == 0, done.output
        assert "avg" in done.stdout
