"""A network that derives the class from the colour must score 1 if the colours are true, and 0 if they are swapped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from fastccsa.cli.evaluate import evaluate_command
from fastccsa.data import Manifest
from fastccsa.evaluation import Outputs, Scores, evaluate
from fastccsa.evaluation.evaluate import run_split
from fastccsa.models import Classifier, ModelCard, build_model, save_model
from fastccsa.system.errors import InputError

COLOURS = {"nv": (220, 40, 40), "mel": (40, 220, 40), "bcc": (40, 40, 220)}
SWAPPED = {"nv": "mel", "mel": "bcc", "bcc": "nv"}


@pytest.fixture(scope="module")
def manifest_csv(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rows = ["image,label,domain,group,split"]
    for domain in ("HAM", "SON"):
        for label in COLOURS:
            for split, count in (("train", 1), ("test", 3)):
                for number in range(count):
                    name = f"{domain}_{label}_{split}{number}.png"
                    shown = label if domain == "HAM" else SWAPPED[label]
                    Image.new("RGB", (30, 20), COLOURS[shown]).save(folder / name)
                    rows.append(f"{name},{label},{domain},{name},{split}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def oracle() -> Classifier:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7))
    model = Classifier(network, 7)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, 0, 0, -9, -9, -9, -9]))
        model.head.weight[:3] = torch.eye(3)
    return model


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_colours_tell_the_classes(manifest_csv, oracle, batch_size) -> None:
    oracle.train()
    scores = evaluate(oracle, Manifest.read(manifest_csv), "cpu", size=16, batch_size=batch_size, workers=1)
    ham, son = scores.domains["HAM"], scores.domains["SON"]
    assert ham.macro_recall == 1
    assert ham.recall == (1.0, 1.0, 1.0, None, None, None, None)
    assert son.macro_recall == 0
    assert [row[:3] for row in son.confusion[:3]] == [(0, 3, 0), (0, 0, 3), (3, 0, 0)]
    assert (ham.count, son.count, scores.average, scores.split) == (9, 9, 0.5, "test")
    assert oracle.training


@pytest.mark.parametrize("image_backend", ["native", "torchvision"])
def test_more_processes_than_remaining_images_share_them_and_give_the_same_outputs(
    manifest_csv, oracle, image_backend
) -> None:
    manifest = Manifest.read(manifest_csv)  # 18 images: four batches of 4, and then two images for four processes
    settings = {"size": 16, "workers": 1, "image_backend": image_backend}
    shares = [run_split(oracle, manifest, "cpu", batch_size=4, rank=r, world_size=4, **settings) for r in range(4)]
    assert [len(share.rows) for share in shares] == [4, 5, 4, 5]
    alone = run_split(oracle, manifest, "cpu", **settings)
    together = Outputs.join(shares)
    assert together.rows.tolist() == alone.rows.tolist()
    assert (together.logits == alone.logits).all()


def test_another_split_can_be_scored(manifest_csv, oracle) -> None:
    scores = evaluate(oracle, Manifest.read(manifest_csv), "cpu", size=16, split="train", workers=1)
    assert scores.domains["HAM"].count == 3


def test_all_backends_agree(manifest_csv, oracle) -> None:
    manifest = Manifest.read(manifest_csv)
    first, *others = (
        evaluate(oracle, manifest, "cpu", size=16, workers=1, image_backend=backend)
        for backend in ("dali", "torchvision", "native")
    )
    assert others == [first, first]


def test_inputs_that_do_not_match_are_errors(manifest_csv, oracle) -> None:
    manifest = Manifest.read(manifest_csv)
    with pytest.raises(InputError, match="no image to evaluate on"):
        evaluate(oracle, manifest, "cpu", split="validation")
    with pytest.raises(InputError, match="the model has 7 classes and the manifest has 3"):
        evaluate(oracle, Manifest.read(manifest_csv, classes=tuple(COLOURS)), "cpu")
    with pytest.raises(InputError, match="unknown device"):
        evaluate(oracle, manifest, "quantum")
    with pytest.raises(InputError, match="float16 needs a CUDA device"):
        evaluate(oracle, manifest, "cpu", amp="float16")


def test_command_prints_a_table_and_writes_json(manifest_csv, tmp_path) -> None:
    run = tmp_path / "run"
    model = build_model("shufflenet_v2_x0_5", 3, weights="none")
    card = ModelCard("shufflenet_v2_x0_5", tuple(COLOURS), ("HAM",), 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
    save_model(run, model, card)
    arguments = ["--run", str(run), "--manifest", str(manifest_csv), "--device", "cpu", "--workers", "1"]
    result = CliRunner().invoke(evaluate_command, [*arguments, "--json", str(tmp_path / "scores.json")])
    assert result.exit_code == 0, result.output
    assert "avg" in result.output
    scores = Scores.read(tmp_path / "scores.json")
    assert scores.classes == tuple(COLOURS)  # the model's, not the manifest's
    assert scores.domains["SON"].count == 9
    result = CliRunner().invoke(evaluate_command, arguments[:2])
    assert isinstance(result.exception, InputError)
    assert "is not a run folder" in str(result.exception)
