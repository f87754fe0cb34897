"""``fastccsa experiment``, from the command line to the table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastccsa.cli import main
from fastccsa.data import Manifest
from fastccsa.evaluation import Scores
from fastccsa.experiments.crops import make_crops

SMALL = (
    "--scale", "size=32,epochs=1,weights=none,batch_size=16", "--set", "backbone=shufflenet_v2_x0_5",
    "--set", "workers=1", "--device", "cpu",
)  # fmt: skip


def run(manifest: Path, out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["experiment", "--manifest", str(manifest), "--out", str(out), *SMALL, *arguments])


@pytest.fixture
def spoiled(manifest_csv, tmp_path) -> Path:
    """The manifest, with unreadable training and validation images of DMF."""
    folder = tmp_path / "spoiled"
    shutil.copytree(manifest_csv.parent, folder)
    manifest = Manifest.read(folder / "manifest.csv")
    table = manifest.table
    unreadable = (table["domain"] == "DMF") & (table["split"] != "test")
    for image in table["image"][unreadable]:
        (folder / image).write_bytes(b"no image at all")
    return folder / "manifest.csv"


def test_an_excluded_domain_is_unused_in_training_and_selection_and_marked_in_the_table(
    spoiled, tmp_path, caplog
) -> None:
    out = tmp_path / "runs"
    result = run(spoiled, out, "O")
    assert result.exit_code == 0, result.output
    scores = Scores.read(out / "O" / "seed0" / "scores.json")
    assert set(scores.domains) == {"HAM", "DMF", "UDA", "SON"}
    assert scores.selection is not None
    assert scores.selection.rule.endswith("macro-average recall over HAM 50 %, UDA 50 %, SON 0 %")
    assert "added, because others start from it: A" in result.output
    assert "O seed 0: started on cpu" in result.output
    assert f"*{100 * scores.domains['DMF'].macro_recall:.1f}" in result.output

    environment = json.loads((out / "O" / "seed0" / "environment.json").read_text())
    assert environment["first_weights"] == str(out / "A" / "seed0")
    assert environment["training"]["seconds"] > 0
    assert environment["training"]["images_per_second"] > 0
    assert environment.keys() >= {"commit", "command", "processor", "cores", "memory_gib", "threads", "packages"}
    assert json.loads((out / "A" / "seed0" / "environment.json").read_text())["first_weights"] == "none"

    again = run(spoiled, out, "O")
    assert again.exit_code == 0
    assert "0 of 2 runs to do" in again.output
    assert "started on" not in again.output

    # DMF's training and validation images were not read; J, which reads them, logs a warning.
    assert "not an image" not in caplog.text
    assert run(spoiled, out, "J").exit_code == 0
    assert "not an image" in caplog.text


def spoil(images: Iterable[Path]) -> None:
    """Overwrite images with zeros, in a way that the store of their crops does not notice."""
    for image in images:
        status = image.stat()
        image.write_bytes(bytes(status.st_size))
        os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_parallel_runs_have_their_own_processes_and_logs_and_share_the_crops(plan_of, manifest_csv, tmp_path) -> None:
    """The crops are made first; a run that decoded one of these images again would fail."""
    out = tmp_path / "runs"
    manifest = shutil.copytree(manifest_csv.parent, tmp_path / "images") / "manifest.csv"
    settings = ("cache=disk", "image_backend=torchvision", "broken_images=stop")
    make_crops(plan_of("AD", manifest=manifest, settings=settings).runs, "cpu", lambda line: None)
    table = Manifest.read(manifest).table
    spoil(manifest.parent / image for image in table["image"][table["split"] != "test"])
    command = [sys.executable, "-m", "fastccsa", "experiment", "AD", "--jobs", "2"]
    options = [argument for setting in settings for argument in ("--set", setting)]
    done = subprocess.run(
        [*command, "--manifest", str(manifest), "--out", str(out), *SMALL, *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for letter in "AD":
        assert (out / letter / "seed0" / "scores.json").exists()
        assert "epoch 1/1" in (out / letter / "seed0.log").read_text()
        assert f"{letter} seed 0: finished" in done.stdout
    assert "epoch 1/1" not in done.stdout
    assert "images of 32 px, for 2 runs" in done.stdout


def test_a_dry_run_prints_the_plan_and_leaves_nothing(manifest_csv, tmp_path) -> None:
    result = run(manifest_csv, tmp_path / "runs", "k", "--dry-run", "--seeds", "2")
    assert result.exit_code == 0, result.output
    assert "4 of 4 runs to do: 322 images forward and backward" in result.output  # 2 * (21 + 2 * 70)
    assert not (tmp_path / "runs").exists()


def test_all_names_what_it_skips(manifest_csv, tmp_path) -> None:
    result = run(manifest_csv, tmp_path / "runs", "--all", "--dry-run", "--set", "backbone=resnet18")
    assert result.exit_code == 0, result.output
    assert "R is skipped: it excludes PH2" in result.output


def test_problems_are_one_line_each_and_nothing_is_started(manifest_csv, tmp_path) -> None:
    result = run(manifest_csv, tmp_path / "runs", "KPR")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert [line.split(":")[1:3] for line in lines] == [[" error", " P"], [" error", " R"]]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name experiments by their letters"),
        (("K", "--all"), "name experiments by their letters"),
        (("X",), "'X' is not an experiment"),
        (("K-A",), "'K-A' is not an experiment"),
        (("K", "--seeds", "0"), "--seeds"),
        (("K", "--set", "lr=fast"), "lr cannot be 'fast'"),
        (("K", "--device", "tpu"), "tpu"),
    ],
)
def test_bad_arguments_are_one_line(manifest_csv, tmp_path, arguments, message) -> None:
    result = run(manifest_csv, tmp_path / "runs", *arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize(("text", "letters"), [("k", "K"), ("A-E", "ABCDE"), ("adk", "ADK"), ("O-T", "OPQRST")])
def test_letters(text: str, letters: str) -> None:
    from fastccsa.cli.experiment import Letters

    assert Letters().convert(text, None, None) == letters
