"""The augmentation op compared with a literal composition of torchvision's transforms on the same crops and views."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import grey_levels, texture
from torchvision.transforms.v2 import functional as F

from fastccsa.images import Transforms, Views
from fastccsa.images.augment import augment, pack_views
from fastccsa.images.torchvision_backend import normalise

COUNT = 20
LAYOUTS = [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False), (torch.bfloat16, True)]


def make_store(transforms: Transforms, count: int = 5) -> torch.Tensor:
    crops = [np.asarray(texture(transforms.crop, transforms.crop, seed)) for seed in range(count)]
    return torch.from_numpy(np.stack(crops))


def literal(store: torch.Tensor, rows: np.ndarray, views: Views, transforms: Transforms) -> torch.Tensor:
    """Apply the paper's steps after the centre crop with torchvision, including normalisation."""
    images = []
    for number, row in enumerate(rows):
        top, left, height, width = views.window[number].tolist()
        image = Image.fromarray(store[row].numpy())
        image = F.resized_crop(image, top, left, height, width, [transforms.size] * 2, antialias=True)
        upside_down, mirrored = views.flips[number]
        image = F.vertical_flip(image) if upside_down else image
        image = F.horizontal_flip(image) if mirrored else image
        image = F.rotate(image, 90.0 * int(views.turns[number]))
        top, left, height, width = views.cutout[number].tolist()
        image.paste(transforms.fill, (left, top, left + width, top + height))
        images.append(normalise(image, transforms))
    return torch.stack(images)


@pytest.fixture(scope="module", params=[224, 64, 33, 8])
def case(request: pytest.FixtureRequest) -> tuple[Transforms, torch.Tensor, np.ndarray, Views, torch.Tensor]:
    transforms = Transforms(request.param)
    store = make_store(transforms)
    rows = np.arange(COUNT) % len(store)
    views = transforms.draw(4, 0, np.arange(COUNT), stream=1)
    return transforms, store, rows, views, literal(store, rows, views, transforms)


@pytest.mark.parametrize(("dtype", "channels_last"), LAYOUTS)
def test_the_op_equals_the_literal_composition(
    case: tuple[Transforms, torch.Tensor, np.ndarray, Views, torch.Tensor],
    dtype: torch.dtype,
    channels_last: bool,
    device: str,
) -> None:
    """Pillow rounds to bytes after each of its two passes: half a grey level each, 1/3 on average for both.

    bfloat16 has 8 significant bits, so normalised values above 2 (white is 2.6) come in steps of 2^-6, and half a step
    is 255 * 0.229 / 128 = 0.46 grey levels.
    """
    transforms, store, rows, views, expected = case
    images = augment(store.to(device), pack_views(rows, views).to(device), transforms, dtype, channels_last).cpu()
    assert images.dtype == dtype
    assert images.shape == expected.shape
    assert images.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    difference = (grey_levels(images.float(), transforms) - grey_levels(expected, transforms)).abs()
    assert difference.mean() < (1 / 3 if dtype == torch.float32 else 1 / 3 + 0.23)
    assert difference.max() < (1.01 if dtype == torch.float32 else 1.47)


def test_all_layouts_have_the_same_values(
    case: tuple[Transforms, torch.Tensor, np.ndarray, Views, torch.Tensor], device: str
) -> None:
    transforms, store, rows, views, _ = case
    store, packed = store.to(device), pack_views(rows, views).to(device)
    images = augment(store, packed, transforms)
    assert torch.equal(images, augment(store, packed, transforms, channels_last=True))
    assert torch.equal(images.bfloat16(), augment(store, packed, transforms, torch.bfloat16))
    # Arbitrary strides: every second image and column of a larger tensor, transposed.
    large = torch.full((2 * COUNT, 3, transforms.size, 2 * transforms.size), 7.0, device=device)
    out = large[::2, :, :, ::2].transpose(2, 3)
    assert augment(store, packed, transforms, out=out).data_ptr() == large.data_ptr()
    assert torch.equal(images, out)
    assert (large[1::2] == 7).all()
    assert (large[..., 1::2] == 7).all()


def test_evaluation_copies_the_centre_unchanged(device: str) -> None:
    """The bytes are those in the store at offset 38."""
    transforms = Transforms()
    store = make_store(transforms)
    images = augment(store.to(device), pack_views(np.arange(5), transforms.evaluation(5)).to(device), transforms)
    centre = store[:, 38:262, 38:262].permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (transforms.mean, transforms.std))
    assert torch.equal(grey_levels(images.cpu(), transforms).round(), centre)
    torch.testing.assert_close(images.cpu(), (centre / 255 - mean) / std, rtol=1e-5, atol=1e-6)


def test_every_symmetry_is_applied(device: str) -> None:
    transforms = Transforms(32)
    store = make_store(transforms, 1).to(device)
    one = transforms.evaluation(1)
    upright = augment(store, pack_views(np.zeros(1, np.int64), one).to(device), transforms)[0]
    flips = np.array([[bool(k & 1), bool(k & 2)] for k in range(4) for _ in range(4)])
    views = Views(np.repeat(one.window, 16, 0), flips, np.tile(np.arange(4), 4), np.zeros((16, 4), np.int64))
    images = augment(store, pack_views(np.zeros(16, np.int64), views).to(device), transforms)
    for image, flip, turns in zip(images, flips, views.turns, strict=True):
        expected = torch.flip(upright, [1 + int(axis) for axis in np.flatnonzero(flip)])
        assert torch.equal(image, torch.rot90(expected, int(turns), (1, 2)))


@pytest.mark.parametrize(("side", "size"), [(5, 300), (1, 8), (40, 5), (400, 50), (699, 700)])
def test_extreme_sizes_equal_the_literal_composition(side: int, size: int, device: str) -> None:
    """Sizes far from the paper's: enlarging a pixel, shrinking 8 times, tiles that do not divide the image."""
    transforms = Transforms(max(size, 8))
    object.__setattr__(transforms, "size", size)
    rng = np.random.default_rng(0)
    store = torch.from_numpy(rng.integers(0, 256, (2, side, side, 3)).astype(np.uint8))
    start = rng.integers(0, side, (8, 2))
    extent = 1 + np.floor(rng.random((8, 2)) * (side - start)).astype(np.int64)
    window = np.concatenate([start, extent], axis=1)
    window[0] = (0, 0, side, side)
    views = Views(window, rng.random((8, 2)) < 0.5, np.arange(8) % 4, np.zeros((8, 4), np.int64))
    rows = np.arange(8) % 2
    images = augment(store.to(device), pack_views(rows, views).to(device), transforms).cpu()
    expected = grey_levels(literal(store, rows, views, transforms), transforms)
    assert (grey_levels(images, transforms) - expected).abs().max() < 1.01  # Pillow's two roundings


def test_the_number_of_threads_does_not_change_the_result(
    case: tuple[Transforms, torch.Tensor, np.ndarray, Views, torch.Tensor],
) -> None:
    transforms, store, rows, views, _ = case
    threads = torch.get_num_threads()
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(augment(store, pack_views(rows, views), transforms))
    torch.set_num_threads(threads)
    assert all(torch.equal(results[0], result) for result in results[1:])


@pytest.mark.parametrize("isa", ["portable", "avx2"])
def test_all_instruction_sets_make_the_same_images(isa: str) -> None:
    """Within float rounding, a hundredth of a grey level."""
    program = """
import numpy as np, sys, torch
from fastccsa.images import Transforms
from fastccsa.images.augment import augment, pack_views
t = Transforms(50)
store = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, t.crop, t.crop, 3)).astype(np.uint8))
np.save(sys.stdout.buffer, augment(store, pack_views(np.arange(20) % 4, t.draw(0, 0, np.arange(20), 1)), t).numpy())
"""

    def run(**environment: str) -> np.ndarray:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, env={**os.environ, **environment}, check=True)
        return np.load(io.BytesIO(done.stdout))

    assert np.abs(run() - run(FASTCCSA_ISA=isa)).max() < 1e-4


def test_views_out_of_bounds_are_errors_on_cpu_and_nan_on_cuda(device: str) -> None:
    transforms = Transforms(16)
    store = make_store(transforms, 3).to(device)
    good = pack_views(np.arange(3), transforms.draw(0, 0, np.arange(3), 1))
    expected = augment(store, good.to(device), transforms)
    faults = [(0, 3), (0, -1), (1, -1), (2, 1 << 40), (3, 0), (4, 22), (5, -1), (7, 17), (9, 8), (9, -1)]
    for column, value in faults:
        bad = good.clone()
        bad[1, column] = value
        if device == "cpu":
            name = ("rows", *["windows"] * 4, *["cutouts"] * 4, "symmetries")[column]
            with pytest.raises(RuntimeError, match=rf"{name}\[1\]"):
                augment(store, bad, transforms)
        else:
            images = augment(store, bad.to(device), transforms)
            assert images[1].isnan().all()
            assert torch.equal(images[[0, 2]], expected[[0, 2]])


def test_invalid_tensors_are_reported() -> None:
    transforms = Transforms(16)
    store, packed = make_store(transforms, 2), pack_views(np.arange(2), transforms.evaluation(2))
    with pytest.raises(RuntimeError, match="float32 or bfloat16"):
        augment(store, packed, transforms, torch.float16)
    with pytest.raises(RuntimeError, match="store must be contiguous uint8"):
        augment(store.float(), packed, transforms)
    with pytest.raises(RuntimeError, match="store must be contiguous uint8"):
        augment(store[:, ::2, ::2], packed, transforms)
    with pytest.raises(RuntimeError, match="more than 8 times"):
        augment(torch.zeros(2, 200, 200, 3, dtype=torch.uint8), packed, transforms)
    with pytest.raises(RuntimeError, match=r"rows must be int64 with a row for each of the 3 images"):
        augment(store, packed, transforms, out=torch.empty(3, 3, 16, 16))
    with pytest.raises(RuntimeError, match="rows must be int64"):
        augment(store, packed.int(), transforms)
    with pytest.raises(RuntimeError, match="10 columns"):
        augment(store, packed[:, :9], transforms)
    assert augment(store, packed[:0], transforms).shape == (0, 3, 16, 16)


def test_the_op_passes_opcheck(device: str) -> None:
    transforms = Transforms(16)
    store = make_store(transforms, 2).to(device)
    packed = pack_views(np.arange(2), transforms.draw(0, 0, np.arange(2), 1)).to(device)
    arguments = (
        torch.empty(2, 3, 16, 16, device=device), store, packed[:, 0], packed[:, 1:5], packed[:, 9], packed[:, 5:9],
        list(transforms.mean), list(transforms.std), list(map(float, transforms.fill)),
    )  # fmt: skip
    torch.library.opcheck(torch.ops.fastccsa.augment_out.default, arguments)


@pytest.mark.cuda
def test_the_op_can_be_captured_in_a_cuda_graph() -> None:
    transforms = Transforms(64)
    store = make_store(transforms).cuda()
    packed = [pack_views(np.arange(5), transforms.draw(0, epoch, np.arange(5), 1)).cuda() for epoch in range(3)]
    static, out = packed[0].clone(), torch.empty(5, 3, 64, 64, device="cuda")
    augment(store, static, transforms, out=out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        augment(store, static, transforms, out=out)
    for views in packed:
        static.copy_(views)
        graph.replay()
        assert torch.equal(out, augment(store, views, transforms))
