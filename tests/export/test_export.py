"""Exported models: the same logits as the run's model for any number of images, and the metadata of the files."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision.transforms import v2

from fastccsa import Manifest, load_model
from fastccsa.cli import main
from fastccsa.evaluation import evaluate
from fastccsa.export import DisagreementError, Reference, export_onnx, export_program, quantize, runners
from fastccsa.images import Transforms
from fastccsa.system.errors import InputError

SIZE = 32
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (Transforms().mean, Transforms().std))


def run_onnx(path, images: np.ndarray) -> torch.Tensor:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["logits"], {"images": images})[0])


def metadata(path) -> dict[str, object]:
    found = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    return {name: json.loads(value) for name, value in found.items() if name in ("classes", "domains", "preprocessing")}


@pytest.fixture(scope="module")
def onnx_file(batch_norm_run, manifest, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(Reference(batch_norm_run, manifest, workers=1, image_backend="torchvision"), path)
    return path


@pytest.fixture(scope="module")
def reference(run_folder, manifest):
    return Reference(run_folder, manifest, workers=1, image_backend="torchvision")


@pytest.mark.parametrize("count", [1, 3, 64])
def test_onnx_computes_the_logits_of_the_run_for_any_number_of_images(batch_norm_run, onnx_file, count) -> None:
    images = torch.randn(count, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = load_model(batch_norm_run)(images)[0]
    torch.testing.assert_close(run_onnx(onnx_file, images.numpy()), expected, rtol=1e-3, atol=1e-4)


def test_the_metadata_describe_the_preprocessing_of_evaluation(onnx_file, manifest_csv) -> None:
    """An image that Pillow prepares by the steps in the file equals the one of evaluation."""
    found = metadata(onnx_file)
    assert found["classes"] == ["bcc", "mel", "nv"]
    assert found["domains"] == ["HAM", "SON"]
    steps = {step.pop("step"): step for step in found["preprocessing"]}
    assert list(steps) == ["decode", "resize", "crop", "scale", "normalise", "transpose"]

    path = Manifest.read(manifest_csv).paths[0]
    resize, crop, normalise = steps["resize"], steps["crop"], steps["normalise"]
    image = Image.open(path).convert("RGB").resize((resize["width"], resize["height"]), Image.Resampling.BILINEAR)
    box = (crop["left"], crop["top"], crop["left"] + crop["width"], crop["top"] + crop["height"])
    values = np.asarray(image.crop(box), dtype=np.float64) * steps["scale"]["multiply_by"]
    found = ((values - normalise["mean"]) / normalise["std"]).transpose(2, 0, 1)

    paper = v2.Compose([v2.Resize((93, 93), antialias=True), v2.CenterCrop(SIZE)])  # 650 and 224, scaled to 32
    pixels = v2.functional.pil_to_tensor(paper(Image.open(path).convert("RGB"))).float() / 255
    np.testing.assert_allclose(found, (pixels - MEAN) / STD, atol=1e-4)


def test_with_pixels_the_normalisation_is_part_of_the_model(run_folder, manifest, tmp_path) -> None:
    path = tmp_path / "pixels.onnx"
    export_onnx(Reference(run_folder, manifest, preprocess="normalise", workers=1), path)
    pixels = torch.randint(0, 256, (3, SIZE, SIZE, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = load_model(run_folder)((pixels.permute(0, 3, 1, 2) / 255 - MEAN) / STD)[0]
    torch.testing.assert_close(run_onnx(path, pixels.numpy()), expected, rtol=1e-3, atol=1e-4)
    assert [step["step"] for step in metadata(path)["preprocessing"]] == ["decode", "resize", "crop"]


def test_a_torch_program_computes_the_runs_logits(run_folder, reference, tmp_path) -> None:
    path = tmp_path / "model.pt2"
    export_program(reference, path)
    images = torch.randn(7, 3, SIZE, SIZE)
    with torch.inference_mode():
        found = torch.export.load(path).module()(images)
        torch.testing.assert_close(found, load_model(run_folder)(images)[0], rtol=1e-4, atol=1e-5)


def test_the_8_bit_model_is_smaller_and_compared_with_float32(run_folder, manifest, reference, tmp_path) -> None:
    path = tmp_path / "int8.onnx"
    full, eight = quantize(reference, path, largest_loss=100)
    model = load_model(run_folder)
    assert full == evaluate(model, manifest, "cpu", size=SIZE, workers=1, image_backend="torchvision")
    assert sum(domain.count for domain in eight.domains.values()) == 12
    assert path.stat().st_size < 4 * sum(weight.numel() for weight in model.parameters()) / 2
    images = torch.randn(16, 3, SIZE, SIZE)
    with torch.inference_mode():
        expected = model(images)[0]
    error = (run_onnx(path, images.numpy()) - expected).norm() / expected.norm()
    assert 1e-4 < error < 0.5
    record = json.loads((tmp_path / "int8.onnx.json").read_text())
    assert record["calibration"] == {"split": "validation", "images": 6}
    assert record["int8"]["domains"]["SON"]["macro_recall"] == eight.domains["SON"].macro_recall


def test_8_bits_may_not_cost_more_than_the_limit(reference, tmp_path) -> None:
    with pytest.raises(DisagreementError, match=r"8 bits cost .* points in .*, and -101 are allowed"):
        quantize(reference, tmp_path / "int8.onnx", largest_loss=-101)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_export_is_not_written(reference, tmp_path, monkeypatch) -> None:
    wrong = lambda images: torch.zeros(len(images), 3)  # noqa: E731
    signature = SimpleNamespace(user_inputs=("images",))
    node = SimpleNamespace(name="images", meta={"val": torch.zeros(1)})
    program = SimpleNamespace(module=lambda: wrong, graph_signature=signature, graph=SimpleNamespace(nodes=[node]))
    monkeypatch.setattr(runners.torch.export, "load", lambda stream: program)
    with pytest.raises(DisagreementError, match="differ from PyTorch's by"):
        export_program(reference, tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []


def test_bad_input(run_folder, reference, manifest_csv, tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match=r"must end in \.onnx"):
        export_onnx(reference, tmp_path / "model.txt")
    with pytest.raises(InputError, match=r"must end in \.pt2"):
        export_program(reference, tmp_path / "model.onnx")
    with pytest.raises(InputError, match="no trained model"):
        Reference(tmp_path, None)
    other = Manifest.read(manifest_csv, classes=("nv", "mel", "bcc", "df"))
    with pytest.raises(InputError, match="not the model's"):
        Reference(run_folder, other)
    with pytest.raises(InputError, match="give a manifest"):
        quantize(Reference(run_folder, None), tmp_path / "int8.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'fastccsa\[export\]'"):
        export_onnx(reference, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_requested_files(run_folder, tmp_path) -> None:
    files = {name: tmp_path / f"model{end}" for name, end in (("onnx", ".onnx"), ("torch", ".pt2"), ("int8", "8.onnx"))}
    result = CliRunner().invoke(
        main,
        ["export", "--run", str(run_folder), "--onnx", str(files["onnx"]), "--torch-export", str(files["torch"]),
         "--quantize", "int8", str(files["int8"]), "--max-loss", "100", "--workers", "1"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert all(file.stat().st_size > 0 for file in files.values())
    assert result.output.count("of PyTorch's on validation images") == 2
    assert [line.split()[0] for line in result.output.splitlines()[-3:]] == ["HAM", "SON", "avg"]
    for ending in ("json", "md"):
        assert {path.name for path in tmp_path.glob(f"*.{ending}")} == {
            f"{file.name}.{ending}" for file in files.values()
        }
    assert "8 bits: mean of the domains' macro-average recalls" in (tmp_path / "model8.onnx.md").read_text()
    for arguments in ([], ["--preprocess", "all"], ["--quantize", "int4", "x.onnx"]):
        result = CliRunner().invoke(main, ["export", "--run", str(run_folder), *arguments])
        assert result.exit_code == 2
    for ending, *arguments in (
        (".onnx", "--onnx", "x.pt2"),
        (".onnx", "--quantize", "int8", "x.pt2"),
        (".pt2", "--torch-export", "x.onnx"),
    ):
        result = CliRunner().invoke(main, ["export", "--run", str(tmp_path / "no run"), *arguments])
        assert result.stderr == f"fastccsa: error: {arguments[-1]} must end in {ending}\n"
