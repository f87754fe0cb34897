"""The stored outputs equal the model's, with the rows of the manifest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file
from scipy.special import softmax
from torch import nn

from fastccsa.data import Manifest
from fastccsa.evaluation import Outputs, evaluate, run_split, score_outputs
from fastccsa.models import Classifier
from fastccsa.system.errors import InputError


def random_outputs(n: int = 12, width: int = 5, seed: int = 0) -> Outputs:
    random = np.random.default_rng(seed)
    return Outputs(
        targets=random.integers(0, 3, n),
        domains=random.integers(0, 2, n),
        rows=np.arange(n) * 2,
        logits=random.normal(size=(n, 3)).astype(np.float32) * 50,
        features=random.normal(size=(n, width)).astype(np.float16),
        classes=("nv", "mel", "bcc"),
        domain_names=("HAM", "SON"),
        split="test",
    )


def test_outputs_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    outputs = random_outputs()
    outputs.write(tmp_path / "outputs.safetensors")
    again = Outputs.read(tmp_path / "outputs.safetensors")
    for name in ("targets", "domains", "rows", "logits", "features"):
        first, second = getattr(outputs, name), getattr(again, name)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)
    assert (again.classes, again.domain_names, again.split) == (outputs.classes, outputs.domain_names, "test")


def test_probabilities_are_the_softmax_even_of_large_logits() -> None:
    outputs = random_outputs()
    np.testing.assert_allclose(outputs.probabilities, softmax(outputs.logits.astype(np.float64), axis=1), rtol=1e-12)


@pytest.mark.parametrize("name", ["targets", "logits"])
def test_an_error_names_a_file_that_lacks_an_array(tmp_path: Path, name: str) -> None:
    path = tmp_path / "outputs.safetensors"
    random_outputs().write(path)
    arrays = load_file(path)
    del arrays[name]
    save_file(arrays, path, metadata={"classes": "[]", "domain_names": "[]", "split": "test"})
    with pytest.raises(InputError, match=r"outputs\.safetensors"):
        Outputs.read(path)


def test_arrays_that_do_not_match_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "outputs.safetensors"
    outputs = random_outputs()
    outputs.targets[3] = 3  # there is no fourth class
    outputs.write(path)
    with pytest.raises(InputError, match="do not match each other"):
        Outputs.read(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"\xff" * 100])
def test_other_files_are_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "outputs.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="remove it to report without it"):
        Outputs.read(path)


@pytest.fixture
def mixed_manifest(tmp_path: Path) -> Manifest:
    """Grey images that alternate between training and test; the brightness encodes the row."""
    rows = ["image,label,domain,group,split"]
    for row in range(8):
        Image.new("RGB", (20, 20), (20 * row,) * 3).save(tmp_path / f"{row}.png")
        domain, split = ("HAM", "SON")[row // 4], ("train", "test")[row % 2]
        rows.append(f"{row}.png,{('nv', 'mel')[row // 4]},{domain},{row},{split}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    return Manifest.read(tmp_path / "manifest.csv")


def test_the_rows_are_those_of_the_manifest_and_the_features_those_of_its_images(
    mixed_manifest: Manifest,
) -> None:
    model = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 7)), 7)
    outputs = run_split(model, mixed_manifest, "cpu", size=16, batch_size=3, workers=1)
    assert outputs.rows.tolist() == [1, 3, 5, 7]
    assert outputs.targets.tolist() == [0, 0, 1, 1]
    assert outputs.domains.tolist() == [0, 0, 1, 1]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (20 * outputs.rows[:, None] / 255 - mean) / std
    np.testing.assert_allclose(outputs.features, expected, atol=2e-3)
    logits = model.head(torch.tensor(expected, dtype=torch.float32)).detach().numpy()
    np.testing.assert_allclose(outputs.logits, logits, atol=1e-5)
    assert score_outputs(outputs) == evaluate(model, mixed_manifest, "cpu", size=16, workers=1)


def test_features_beyond_half_precision_are_clipped_not_infinite(mixed_manifest: Manifest) -> None:
    class Loud(nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            features = images.mean((2, 3)) * 1e7
            return self.head(features), features

        head = nn.Linear(3, 7)

    features = run_split(Loud(), mixed_manifest, "cpu", size=16, workers=1).features
    assert features.dtype == np.float16
    assert np.isfinite(features).all()
