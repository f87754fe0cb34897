"""The comparison with PyTorch: its bound, its images, what it refuses, and the record beside the file."""

from __future__ import annotations

import hashlib
import json
import math

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fastccsa import Manifest, load_model
from fastccsa.cli import main
from fastccsa.data import ImageLoader, Transforms
from fastccsa.evaluation import evaluate
from fastccsa.export import DisagreementError, Reference, export_program, resample
from fastccsa.export import model as exported_model
from fastccsa.sampling import ImageSampler

SIZE = 32


@pytest.fixture(scope="module")
def reference(run_folder, manifest):
    return Reference(run_folder, manifest, workers=1, image_backend="torchvision")


def test_the_bound_is_ten_times_the_error_of_pytorch_in_float32(run_folder, manifest, reference) -> None:
    part = manifest.select("validation")
    sampler = ImageSampler(part.labels, num_classes=3, batch_size=len(part), shuffle=False)
    with ImageLoader(part, sampler, False, transforms=Transforms(size=SIZE), backend="torchvision") as loader:
        (batch,) = loader
    images, single = batch["images"], load_model(run_folder)
    with torch.no_grad():
        logits = single(images)[0]
        error = (load_model(run_folder).double()(images.double())[0] - logits).abs().max().item()
    # Batches of other sizes round differently.
    agreement = reference.compare(reference.module)
    assert agreement.rounding == pytest.approx(error, rel=1)
    assert agreement.bound == 10 * agreement.rounding
    assert 0 < agreement.bound < 1e-3 * logits.abs().max()


@pytest.mark.parametrize("share", [0.5, 2.0])
def test_a_difference_beyond_rounding_is_refused_by_domain(reference, share) -> None:
    bound = reference.compare(reference.module).bound

    def shifted(images: torch.Tensor) -> torch.Tensor:
        logits = reference.module(images)
        logits[-1, 1] += share * bound
        return logits

    if share < 1:
        assert reference.compare(shifted).difference == pytest.approx(share * bound, rel=0.1)
        return
    with pytest.raises(DisagreementError, match=r"on validation images of (HAM|SON), and rounding explains"):
        reference.compare(shifted)


def test_logits_that_are_not_numbers_or_of_another_shape_are_refused(reference) -> None:
    with pytest.raises(DisagreementError, match="differ from PyTorch's by nan"):
        reference.compare(lambda images: reference.module(images) * math.nan)
    with pytest.raises(DisagreementError, match=r"returns logits \[6, 2\] instead of \[6, 3\]"):
        reference.compare(lambda images: reference.module(images)[:, :2])


def test_the_record_has_the_figures_by_domain(run_folder, manifest, reference, tmp_path) -> None:
    path = tmp_path / "model.pt2"
    agreement = export_program(reference, path)
    record = json.loads((tmp_path / "model.pt2.json").read_text())
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert record["classes"] == ["bcc", "mel", "nv"]
    assert record["preprocessing"][0]["step"] == "decode"
    figures = record["agreement"]
    assert figures["compared_on"] == "validation"
    assert figures["bound"] == agreement.bound
    scores = evaluate(
        load_model(run_folder), manifest, "cpu", split="validation", size=SIZE, workers=1, image_backend="torchvision"
    )
    for name, domain in figures["domains"].items():
        assert domain["images"] == scores.domains[name].count == 3
        assert domain["recall"] == domain["exported_recall"] == scores.domains[name].macro_recall
        assert domain["changed"] == 0
        assert domain["difference"] <= agreement.bound
    assert list(figures["domains"]) == ["HAM", "SON"]


def test_fewer_images_are_spread_over_the_domains(run_folder, manifest) -> None:
    few = Reference(run_folder, manifest, count=2, workers=1, image_backend="torchvision")
    assert {name: domain.images for name, domain in few.compare(few.module).domains.items()} == {"HAM": 1, "SON": 1}


def test_without_validation_images_nothing_is_compared(run_folder, manifest) -> None:
    with pytest.raises(ValueError, match="has no validation image"):
        Reference(run_folder, manifest.select("test"))


def test_a_preprocessing_that_shows_another_region_is_refused(run_folder, manifest, monkeypatch) -> None:
    def shifted(photographs, transforms, dtype):
        return resample.resize_and_crop(photographs.roll(4, dims=2), transforms, dtype)

    monkeypatch.setattr(exported_model, "resize_and_crop", shifted)
    wrong = Reference(run_folder, manifest, preprocess="all", workers=1)
    with pytest.raises(DisagreementError, match=r"differs from Pillow's by .* grey levels"):
        wrong.compare(wrong.module)


def test_photographs_that_are_too_small_are_named(run_folder, tmp_path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "tiny.png")
    table = tmp_path / "manifest.csv"
    table.write_text("image,label,domain,group,split\ntiny.png,nv,HAM,1,validation\n")
    images = Manifest.read(table, classes=("bcc", "mel", "nv"))
    wrong = Reference(run_folder, images, preprocess="all", workers=1, image_backend="torchvision")
    with pytest.raises(ValueError, match=r"tiny\.png has 40 x 20 pixels, .* takes 32 to 16384"):
        wrong.compare(wrong.module)


def test_images_that_are_not_at_hand_need_an_option(run_folder, tmp_path) -> None:
    arguments = ["export", "--run", str(run_folder), "--torch-export", str(tmp_path / "model.pt2")]
    result = CliRunner().invoke(main, [*arguments, "--manifest", str(tmp_path / "gone.csv")])
    assert result.exit_code == 2
    assert "gone.csv" in result.stderr
    assert "add --without-images" in result.stderr
    assert list(tmp_path.iterdir()) == []
    result = CliRunner().invoke(main, [*arguments, "--without-images"])
    assert result.exit_code == 0, result.output
    assert "on noise images" in result.output
    figures = json.loads((tmp_path / "model.pt2.json").read_text())["agreement"]
    assert figures["compared_on"] == "noise"
    assert figures["domains"]["noise"]["recall"] is None
    refused = CliRunner().invoke(
        main, ["export", "--run", str(run_folder), "--quantize", "int8", "x.onnx", "--without-images"]
    )
    assert refused.exit_code == 2
