"""Every backend compared with the literal composition of torchvision's transforms.

Decoders agree exactly. Each resampling may round differently by a grey level (Pillow has fixed-point weights, DALI
floating point): 1 level for one resampling, 2 for two. At the border of the random crop, where the filter of the second
resampling reaches across the edge, Pillow renormalises its weights and DALI repeats the edge pixel. On strong texture,
this makes a difference of a few levels in the outermost pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import grey_levels, texture

from fastccsa.images import Transforms, Views
from fastccsa.images.dali import DaliBackend
from fastccsa.images.decode import decode
from fastccsa.images.native import NativeBackend
from fastccsa.images.source import ImageSource
from fastccsa.images.torchvision_backend import TorchvisionBackend, exact, fused, normalise

CPU = torch.device("cpu")
CASES = [(224, (500, 667)), (224, (150, 200)), (64, (150, 200)), (64, (450, 600)), (64, (60, 90)), (40, (900, 700))]
COUNT = 16


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}px-from-{case[1][0]}x{case[1][1]}")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Transforms, ImageSource]:
    size, (height, width) = request.param
    path = tmp_path_factory.mktemp("parity") / "image.jpg"
    texture(height, width, seed=size).save(path, quality=92)
    return Transforms(size), ImageSource([str(path)], [0], [0])


def make(
    source: ImageSource, transforms: Transforms, views: Views, mode: str, device: torch.device = CPU
) -> torch.Tensor:
    """Make the images with DALI; returns grey levels, [B, 3, size, size]."""
    backend = DaliBackend(source, transforms, device, mode, batch_size=len(views), num_threads=2, prefetch=1)
    batch = source.read(np.zeros(len(views), np.int64), views)
    ((_, images),) = backend.run(iter([batch]))
    return grey_levels(images, transforms).cpu()


def literal(source: ImageSource, transforms: Transforms, views: Views, compose: object = exact) -> torch.Tensor:
    """Make the same images with torchvision."""
    image = decode(source.read(np.zeros(1, np.int64), views).images[0].data)
    images = [normalise(compose(image, transforms, views, row), transforms) for row in range(len(views))]
    return grey_levels(torch.stack(images), transforms)


def test_dali_exact_equals_the_literal_composition(case: tuple[Transforms, ImageSource]) -> None:
    transforms, source = case
    views = transforms.draw(1, 0, np.arange(COUNT), stream=1)
    difference = (make(source, transforms, views, "exact") - literal(source, transforms, views)).abs()
    assert difference.mean() < 0.4
    assert difference[..., 2:-2, 2:-2].max() < 3.01  # 2 for rounding; the cutout does not move
    assert difference.max() < 8


def test_dali_fused_equals_pillows_resampling_of_the_region(case: tuple[Transforms, ImageSource]) -> None:
    transforms, source = case
    views = transforms.draw(1, 0, np.arange(COUNT), stream=1)
    difference = (make(source, transforms, views, "fused") - literal(source, transforms, views, fused)).abs()
    assert difference.mean() < 0.3
    assert difference.max() < 1.01


def test_fused_is_close_to_the_literal_composition(case: tuple[Transforms, ImageSource]) -> None:
    """One resampling blurs less than two, so edges and noise differ, but the picture must not shift."""
    transforms, source = case
    views = transforms.draw(1, 0, np.arange(COUNT), stream=1)
    one, two = literal(source, transforms, views, fused), literal(source, transforms, views)
    assert (one - two).abs().mean() < 4
    assert (one - two).mean().abs() < 0.2
    # The difference is only in details at the scale of a pixel: blurred, the two agree.
    blurred = torch.nn.functional.avg_pool2d(one - two, 4)
    assert blurred.abs().mean() < 1


@pytest.mark.parametrize("mode", ["exact", "fused"])
def test_evaluation_equals_the_literal_composition(case: tuple[Transforms, ImageSource], mode: str) -> None:
    transforms, source = case
    views = transforms.evaluation(2)
    images = make(source, transforms, views, mode)
    image = decode(source.read(np.zeros(1, np.int64), views).images[0].data)
    side = transforms.resize
    offset = transforms.crop_offset + transforms.evaluation_offset
    resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    centre = resized[offset : offset + transforms.size, offset : offset + transforms.size]
    expected = torch.from_numpy(centre.astype(np.float32)).permute(2, 0, 1)
    for made in images:
        assert (made - expected).abs().max() < 1.01


def test_the_cutout_of_the_views_is_blank(case: tuple[Transforms, ImageSource]) -> None:
    transforms, source = case
    views = transforms.draw(1, 0, np.arange(COUNT), stream=1)
    images = make(source, transforms, views, "fused")
    blank = torch.tensor(transforms.fill).view(3, 1, 1)
    for image, (top, left, height, width) in zip(images, views.cutout, strict=True):
        assert (image[:, top : top + height, left : left + width] - blank).abs().max() < 0.01


def test_every_symmetry_is_applied(case: tuple[Transforms, ImageSource]) -> None:
    transforms, source = case
    one = transforms.evaluation(1)
    upright = make(source, transforms, one, "fused")[0]
    flips = np.array([[bool(k & 1), bool(k & 2)] for k in range(4) for _ in range(4)])
    views = Views(np.repeat(one.window, 16, 0), flips, np.tile(np.arange(4), 4), np.zeros((16, 4), np.int64))
    for image, flip, turns in zip(make(source, transforms, views, "fused"), flips, views.turns, strict=True):
        expected = torch.flip(upright, [1 + int(axis) for axis in np.flatnonzero(flip)])
        expected = torch.rot90(expected, int(turns), (1, 2))
        assert (image - expected).abs().max() < 1.01


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_exif_orientation_is_applied_before_the_crop(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "camera.jpg"
    texture(150, 200, seed=0).save(path, quality=92, exif=exif)
    source, transforms = ImageSource([str(path)], [0], [0]), Transforms(64)
    views = transforms.draw(2, 0, np.arange(COUNT), stream=1)
    expected = literal(source, transforms, views, fused)
    for made in (make(source, transforms, views, "fused"), native(source, transforms, views, reduce=False)):
        assert (made - expected).abs().max() < 1.01


def test_torchvision_backend_equals_the_literal_composition(case: tuple[Transforms, ImageSource]) -> None:
    transforms, source = case
    views = transforms.draw(1, 0, np.arange(4), stream=1)
    for mode, compose in (("exact", exact), ("fused", fused)):
        backend = TorchvisionBackend(source, transforms, CPU, mode, num_threads=2, prefetch=1)
        ((_, images),) = backend.run(iter([source.read(np.zeros(4, np.int64), views)]))
        backend.close()
        assert torch.equal(grey_levels(images, transforms), literal(source, transforms, views, compose))


def native(source: ImageSource, transforms: Transforms, views: Views, reduce: bool) -> torch.Tensor:
    """Make the same images with fastccsa's own decoder and kernel."""
    backend = NativeBackend(source, transforms, CPU, num_threads=2, prefetch=1, reduce=reduce)
    ((_, images),) = backend.run(iter([source.read(np.zeros(len(views), np.int64), views)]))
    backend.close()
    return grey_levels(images, transforms)


def test_native_equals_pillows_resampling_of_the_region(case: tuple[Transforms, ImageSource]) -> None:
    """Within the rounding of Pillow's two passes, if no pixels are averaged while decoding.

    Each pass rounds by up to half a level: 1 at most for both, and at most 1/3 on average.
    """
    transforms, source = case
    for views in (transforms.draw(1, 0, np.arange(COUNT), stream=1), transforms.evaluation(2)):
        difference = (native(source, transforms, views, False) - literal(source, transforms, views, fused)).abs()
        assert difference.mean() < 1 / 3
        assert difference.max() < 1.01


@pytest.mark.parametrize(("size", "shape"), [(64, (450, 600)), (40, (900, 700))])
def test_native_stays_close_if_pixels_are_averaged_while_decoding(
    size: int, shape: tuple[int, int], tmp_path: Path
) -> None:
    """The difference is smaller than that between resampling once and resampling twice.

    Colours are halved to avoid clipping, which affects pixels but not means of pixels. A remaining shift in brightness
    comes from rounding: means of 8x8 pixels are in eighths of a level, and ties are rounded up. That is 1/16 of a level
    in brightness and in both chroma components, (1 + 0.229 + 0.476) / 16 = 0.107 in the mean of red, green and blue.
    """
    path = tmp_path / "image.jpg"
    texture(*shape, seed=size).point([64 + value // 2 for value in range(256)] * 3).save(path, quality=92)
    transforms, source = Transforms(size), ImageSource([str(path)], [0], [0])
    views = transforms.draw(1, 0, np.arange(COUNT), stream=1)
    once = literal(source, transforms, views, fused)
    averaging = native(source, transforms, views, True) - once
    twice = literal(source, transforms, views) - once
    assert averaging.abs().max() > 1.01  # pixels were averaged, unlike in the previous test
    assert averaging.mean().abs() < 0.107
    for detail in (1, 4):
        changed, accepted = (torch.nn.functional.avg_pool2d(x, detail).abs().mean() for x in (averaging, twice))
        assert changed < accepted / 2


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["exact", "fused"])
def test_gpu_is_close_to_the_literal_composition(case: tuple[Transforms, ImageSource], mode: str) -> None:
    """The GPU's JPEG decoder has its own inverse transform and rounding, with differences of a few levels per pixel."""
    transforms, source = case
    views = transforms.draw(1, 0, np.arange(COUNT), stream=1)
    compose = exact if mode == "exact" else fused
    images = make(source, transforms, views, mode, torch.device("cuda", 0))
    assert (images - literal(source, transforms, views, compose)).abs().mean() < 1.5
