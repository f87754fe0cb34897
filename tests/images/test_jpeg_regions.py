"""The decoder of JPEG regions against Pillow, which is to say libjpeg-turbo; and against whatever is no such file."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pipeline_images import texture

from fastccsa.images import _jpeg


def encode(image: Image.Image, **options: Any) -> np.ndarray:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return np.frombuffer(stream.getvalue(), np.uint8)


def pillow(data: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data.tobytes())).convert("RGB"))


def whole(data: np.ndarray, scale: int = 1) -> np.ndarray | None:
    width, height = Image.open(io.BytesIO(data.tobytes())).size
    return _jpeg.decode_region(data, 0, 0, -(-height // scale), -(-width // scale), scale)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("restarts", [0, 1, 5])
def test_regions_are_libjpegs_to_the_bit(subsampling: str, restarts: int) -> None:
    """Of all sizes from one pixel on, which meets every border; smooth and noisy; any quality and any tables."""
    rng = np.random.default_rng(restarts)
    for number in range(40):
        height, width = (int(value) for value in rng.integers(1, 70, 2))
        image = texture(height, width, number, noise=float(rng.integers(0, 60)))
        options: dict[str, Any] = {"quality": int(rng.integers(5, 101)), "optimize": bool(number % 2)}
        if restarts:
            options["restart_marker_blocks"] = restarts
        data = (
            encode(image.convert("L"), **options)
            if subsampling == "grey"
            else encode(image, subsampling=subsampling, **options)
        )
        top, left = int(rng.integers(0, height)), int(rng.integers(0, width))
        down, across = int(rng.integers(1, height - top + 1)), int(rng.integers(1, width - left + 1))
        expected = pillow(data)
        assert np.array_equal(whole(data), expected)
        region = _jpeg.decode_region(data, top, left, down, across, 1)
        assert np.array_equal(region, expected[top : top + down, left : left + across])


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
def test_a_reduced_image_is_made_of_the_means_of_its_squares(scale: int, subsampling: str) -> None:
    """Within the rounding of each of three colours; where two of them
    have half the resolution, libjpeg blurs them before they are averaged here."""
    image = texture(128, 160, seed=1).point([64 + value // 2 for value in range(256)] * 3)  # nothing to clip
    data = (
        encode(image.convert("L"), quality=90)
        if subsampling == "grey"
        else encode(image, quality=90, subsampling=subsampling)
    )
    expected = pillow(data).reshape(128 // scale, scale, 160 // scale, scale, 3).mean(axis=(1, 3))
    reduced = whole(data, scale)
    assert reduced is not None
    difference = np.abs(reduced - expected)
    assert difference.max() < {"grey": 1.1, "4:4:4": 2.3}.get(subsampling, 12)
    assert difference.mean() < 0.6
    assert np.array_equal(_jpeg.decode_region(data, 3, 5, 7, 9, scale), reduced[3:10, 5:14])


def test_reduced_sizes_are_rounded_up() -> None:
    data = encode(texture(61, 83, seed=2))
    for scale in (1, 2, 4, 8):
        size = (-(-61 // scale), -(-83 // scale), 3)
        reduced = whole(data, scale)
        assert reduced is not None
        assert reduced.shape == size


def test_what_it_does_not_read_is_left_to_others() -> None:
    image = texture(40, 50, seed=0)
    others = {
        "progressive": encode(image, progressive=True),
        "CMYK": encode(image.convert("CMYK")),
        "RGB": encode(image, keep_rgb=True),
        "PNG": np.frombuffer(b"\x89PNG\r\n\x1a\n" + bytes(100), np.uint8),
        "empty": np.empty(0, np.uint8),
        "one byte": np.array([0xFF], np.uint8),
        "start alone": np.array([0xFF, 0xD8], np.uint8),
    }
    for name, data in others.items():
        assert _jpeg.decode_region(data, 0, 0, 40, 50, 1) is None, name
        assert not _jpeg.pass_over(data, 0, 0, 40, 50, 1), name


def test_nothing_is_read_below_the_region() -> None:
    data = encode(texture(200, 200, seed=0))
    expected = pillow(data)
    cut = data[: len(data) // 2]
    assert np.array_equal(_jpeg.decode_region(cut, 20, 30, 40, 50, 1), expected[20:60, 30:80])
    assert _jpeg.decode_region(cut, 20, 30, 180, 50, 1) is None
    assert _jpeg.pass_over(cut, 20, 30, 40, 50, 1)
    assert not _jpeg.pass_over(cut, 20, 30, 180, 50, 1)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_damaged_files_do_no_harm(subsampling: str) -> None:
    """Bytes at random, in the header and in the scan: pixels or None, never a crash."""
    rng = np.random.default_rng(0)
    sound = encode(texture(48, 64, seed=0), subsampling=subsampling, restart_marker_blocks=3)
    refused = 0
    for number in range(1500):
        data = sound.copy()
        places = rng.integers(2, 700 if number % 2 else len(data), rng.integers(1, 6))
        data[places] = rng.integers(0, 256, len(places))
        if number % 5 == 0:
            data = data[: rng.integers(0, len(data))]
        try:
            made = _jpeg.decode_region(data, 8, 8, 40, 48, int(rng.choice([1, 2, 4, 8])) if number % 3 == 0 else 1)
        except ValueError:  # the damaged header says that the image is smaller
            refused += 1
        else:
            refused += made is None
    assert 0 < refused < 1500


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 41, 5), (0, 46, 5, 5), (0, 0, 0, 5), (2**31 - 1, 0, 5, 5)])
def test_a_region_outside_the_image_is_refused(region: tuple[int, int, int, int]) -> None:
    data = encode(texture(40, 50, seed=0))
    for call in (_jpeg.decode_region, _jpeg.pass_over):
        with pytest.raises(ValueError, match="within the image"):
            call(data, *region, 1)
        with pytest.raises(ValueError, match="1, 2, 4 or 8"):
            call(data, 0, 0, 5, 5, 3)
