"""The deployment: its preprocessing is that of evaluation, and its answers keep the coverage that they state."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from fastccsa import Manifest
from fastccsa.evaluation import run_split
from fastccsa.export import Reference, export_onnx
from fastccsa.images import Transforms
from fastccsa.models import ModelCard, build_model, save_model

Example = Callable[[str], ModuleType]
SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "deploy.py"
CLASSES = ("bcc", "mel", "nv")


def build(folder: Path) -> None:
    """Save a network of random weights, which tells the colours of the images apart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model("squeezenet1_1", 3, weights="none")
        torch.nn.init.normal_(model.head.weight, std=1)
    transforms = Transforms(size=32)
    save_model(folder, model, ModelCard("squeezenet1_1", CLASSES, ("HAM",), 32, transforms.mean, transforms.std))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    build(folder)
    return folder


@pytest.fixture(scope="module", params=["none", "all"])
def model(request, run: Path, manifest_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    manifest = Manifest.read(manifest_csv, classes=CLASSES)
    path = tmp_path_factory.mktemp("deployed") / f"{request.param}.onnx"
    export_onnx(Reference(run, manifest, preprocess=request.param, workers=1), path)
    return path


def test_a_photograph_gets_the_probabilities_of_evaluation(example: Example, run, model, manifest_csv) -> None:
    from fastccsa import load_model

    manifest = Manifest.read(manifest_csv, classes=CLASSES)
    outputs = run_split(load_model(run), manifest, "cpu", split="test", size=32, workers=1, image_backend="torchvision")
    deployed = example("deploy").Model(model)
    found = np.stack([deployed.probabilities(Path(manifest.paths[row])) for row in outputs.rows])
    # Grey levels are rounded in another order, or with "all" not at all.
    np.testing.assert_allclose(found, outputs.probabilities, atol=0.03)
    assert np.ptp(found, axis=0).max() > 0.1


def test_the_script_calibrates_answers_and_checks_without_fastccsa(model, manifest_csv, tmp_path) -> None:
    """It runs with only numpy, Pillow and ONNX Runtime."""
    for file in model.parent.glob(f"{model.name}*"):
        shutil.copy(file, tmp_path)
    copy = tmp_path / model.name
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'fastccsa'])); del sys.argv[0]; import runpy; "

    def call(*arguments: str) -> str:
        command = f"{blocked}runpy.run_path(sys.argv[0], run_name='__main__')"
        ended = subprocess.run(
            [sys.executable, "-c", command, str(SCRIPT), *arguments],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    call("calibrate", str(copy), "--manifest", str(manifest_csv), "--coverage", "0.8")
    assert json.loads((tmp_path / f"{copy.name}.sets.json").read_text())["images"] == 18
    photograph = Manifest.read(manifest_csv).paths[-1]
    answered = call("answer", str(copy), str(photograph))
    assert any(f"{name} (" in answered for name in CLASSES)
    assert "with probability 0.8 or more" in answered
    rows = [line.split() for line in call("check", str(copy), "--manifest", str(manifest_csv)).splitlines()[1:]]
    assert [(row[0], int(row[1])) for row in rows] == [("DMF", 6), ("HAM", 6), ("SON", 6), ("all", 18)]


@pytest.mark.parametrize(("count", "coverage"), [(19, 0.95), (50, 0.9), (333, 0.7)])
def test_the_coverage_is_the_stated_one_for_any_model(example: Example, count: int, coverage: float) -> None:
    """Over many calibrations: k / (n + 1) with k = ceil((n + 1) * coverage), whatever the scores' distribution."""
    deploy, random = example("deploy"), np.random.default_rng(count)
    draws = 4000
    scores = random.beta(0.4, 2.0, (draws, count + 1))
    covered = np.mean([row[-1] <= deploy.threshold(row[:-1], coverage) for row in scores])
    exact = np.ceil((count + 1) * coverage - 1e-9) / (count + 1)
    assert abs(covered - exact) < 4 * np.sqrt(exact * (1 - exact) / draws) + 1e-9
    assert exact >= coverage - 1e-9


def test_the_answer_has_all_classes_within_the_threshold_and_the_most_probable(example: Example) -> None:
    deploy = example("deploy")
    probabilities = np.array([0.1, 0.5, 0.4])
    assert deploy.answer(probabilities, 0.6) == [1, 2]
    assert deploy.answer(probabilities, 0.95) == [1, 2, 0]
    assert deploy.answer(probabilities, 0.2) == [1]


def test_too_few_images_for_the_coverage_are_refused(example: Example) -> None:
    deploy = example("deploy")
    with pytest.raises(SystemExit, match="needs 19 images or more, and there are 18"):
        deploy.threshold(np.zeros(18), 0.95)
    assert deploy.threshold(np.arange(19.0), 0.95) == 18
