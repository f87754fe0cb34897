"""Models that take photographs of any size: resizing, crop and normalisation are part of them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from fastccsa import load_model
from fastccsa.export import Reference, quantize
from fastccsa.export.resample import SMALLEST, resize_and_crop
from fastccsa.images import Transforms

SIZE = 32
SHAPES = [(450, 600), (SMALLEST, 77), (93, 93), (1203, 64), (96, 200)]
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in (Transforms().mean, Transforms().std))


def photograph(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)


def by_torch(photographs: torch.Tensor, transforms: Transforms) -> torch.Tensor:
    """Resize the whole photograph with torch's own antialiased interpolation, and crop: grey levels."""
    side, offset = transforms.resize, transforms.crop_offset + transforms.evaluation_offset
    resized = torch.nn.functional.interpolate(
        photographs.permute(0, 3, 1, 2).double(), (side, side), mode="bilinear", antialias=True
    )
    return resized[..., offset : offset + transforms.size, offset : offset + transforms.size]


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_resampling_is_torchs_and_pillows(size, shape) -> None:
    transforms = Transforms(size=size)
    pixels = photograph(*shape)
    found = resize_and_crop(pixels, transforms, torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), by_torch(pixels, transforms), rtol=0, atol=1e-3)
    image = Image.fromarray(pixels[0].numpy()).resize([transforms.resize] * 2, Image.Resampling.BILINEAR)
    offset = transforms.crop_offset + transforms.evaluation_offset
    pillow = torch.from_numpy(np.asarray(image.crop([offset, offset, offset + size, offset + size])).copy())
    assert (found[0] - pillow.permute(2, 0, 1)).abs().max() < 1.01


@pytest.fixture(scope="module")
def files(run_folder, manifest, tmp_path_factory):
    """An 8-bit model that takes photographs."""
    path = tmp_path_factory.mktemp("photographs") / "int8.onnx"
    reference = Reference(run_folder, manifest, preprocess="all", workers=1, image_backend="torchvision")
    quantize(reference, path, largest_loss=100)
    return path


@pytest.mark.parametrize(("shape", "count"), [((40, 50), 1), ((333, 200), 2), ((64, 1000), 1)])
def test_an_8_bit_model_takes_photographs_of_any_size(run_folder, files, shape, count) -> None:
    session = onnxruntime.InferenceSession(files, providers=["CPUExecutionProvider"])
    pixels = photograph(*shape, count)
    (found,) = session.run(["logits"], {"images": pixels.numpy()})
    images = (by_torch(pixels, Transforms(size=SIZE)).float() / 255 - MEAN) / STD
    with torch.no_grad():
        expected = load_model(run_folder)(images)[0]
    assert found.shape == (count, 3)
    error = (torch.from_numpy(found) - expected).norm() / expected.norm()
    assert error < 0.3
