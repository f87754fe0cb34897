"""The decoder of JPEG regions compared with Pillow (libjpeg-turbo), and on unsupported and damaged files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_images import texture

from fastccsa.images.jpeg import decode_region, read_codes


def encode(image: Image.Image, **options: Any) -> np.ndarray:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return np.frombuffer(stream.getvalue(), np.uint8)


def pillow(data: np.ndarray) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data.tobytes())).convert("RGB"))


def decode_all(data: np.ndarray, scale: int = 1) -> np.ndarray | None:
    width, height = Image.open(io.BytesIO(data.tobytes())).size
    return decode_region(data, (0, 0, -(-height // scale), -(-width // scale)), scale)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
@pytest.mark.parametrize("restarts", [0, 1, 5])
def test_regions_equal_libjpegs_bit_for_bit(subsampling: str, restarts: int) -> None:
    """Random sizes from one pixel up, which cover every border; smooth and noisy images; any quality."""
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
        assert np.array_equal(decode_all(data), expected)
        region = decode_region(data, (top, left, down, across))
        assert np.array_equal(region, expected[top : top + down, left : left + across])


def test_regions_of_440_equal_libjpegs_bit_for_bit() -> None:
    """Pillow writes no 4:4:0. With as many blocks in a column as in a row, a file of 4:2:2 can be made one."""
    for side in (16, 32, 64):
        data = encode(texture(side, side, seed=side, noise=20.0), subsampling="4:2:2", quality=90).tobytes()
        changed = data.replace(b"\x03\x01\x21\x00\x02\x11", b"\x03\x01\x12\x00\x02\x11")
        assert changed != data
        content = np.frombuffer(changed, np.uint8)
        expected = pillow(content)
        assert np.array_equal(decode_all(content), expected)
        assert np.array_equal(decode_region(content, (3, 5, side - 7, 8)), expected[3 : side - 4, 5:13])
        assert decode_region(content, (0, 0, side // 4, side // 4), 4) is not None


@pytest.mark.parametrize("scale", [2, 4, 8])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "grey"])
def test_a_reduced_image_has_the_means_of_squares(scale: int, subsampling: str) -> None:
    """Within the rounding of three colours.

    With chroma subsampling, libjpeg blurs the chroma before this test averages it.
    """
    image = texture(128, 160, seed=1).point([64 + value // 2 for value in range(256)] * 3)  # so that nothing is clipped
    data = (
        encode(image.convert("L"), quality=90)
        if subsampling == "grey"
        else encode(image, quality=90, subsampling=subsampling)
    )
    expected = pillow(data).reshape(128 // scale, scale, 160 // scale, scale, 3).mean(axis=(1, 3))
    reduced = decode_all(data, scale)
    assert reduced is not None
    difference = np.abs(reduced - expected)
    assert difference.max() < {"grey": 1.1, "4:4:4": 2.3}.get(subsampling, 12)
    assert difference.mean() < 0.6
    assert np.array_equal(decode_region(data, (3, 5, 7, 9), scale), reduced[3:10, 5:14])


def test_reduced_sizes_are_rounded_up() -> None:
    data = encode(texture(61, 83, seed=2))
    for scale in (1, 2, 4, 8):
        size = (-(-61 // scale), -(-83 // scale), 3)
        reduced = decode_all(data, scale)
        assert reduced is not None
        assert reduced.shape == size


def test_unsupported_files_are_declined() -> None:
    image = texture(40, 50, seed=0)
    others = {
        "progressive": encode(image, progressive=True),
        "CMYK": encode(image.convert("CMYK")),
        "RGB": encode(image, keep_rgb=True),
        "PNG": np.frombuffer(b"\x89PNG\r\n\x1a\n" + bytes(100), np.uint8),
        "empty": np.empty(0, np.uint8),
        "one byte": np.array([0xFF], np.uint8),
        "start marker only": np.array([0xFF, 0xD8], np.uint8),
    }
    for name, data in others.items():
        assert decode_region(data, (0, 0, 40, 50)) is None, name
        assert not read_codes(data, (0, 0, 40, 50)), name


def test_nothing_is_read_below_the_region() -> None:
    data = encode(texture(200, 200, seed=0))
    expected = pillow(data)
    cut = data[: len(data) // 2]
    assert np.array_equal(decode_region(cut, (20, 30, 40, 50)), expected[20:60, 30:80])
    assert decode_region(cut, (20, 30, 180, 50)) is None
    assert read_codes(cut, (20, 30, 40, 50))
    assert not read_codes(cut, (20, 30, 180, 50))


def segments(data: bytes) -> dict[int, tuple[int, int]]:
    """Return begin and end of the first segment of each marker, up to the scan's header."""
    found: dict[int, tuple[int, int]] = {}
    at, marker = 2, 0
    while marker != 0xDA:
        marker, end = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found.setdefault(marker, (at, end))
        at = end
    return found


INTACT = encode(texture(40, 50, seed=0), restart_marker_blocks=2, optimize=True).tobytes()
HEADER_END = segments(INTACT)[0xDA][1]
RESTARTS = [at for at in range(HEADER_END, len(INTACT)) if INTACT[at] == 0xFF and 0xD0 <= INTACT[at + 1] <= 0xD7]


def insert(what: bytes, at: int) -> bytes:
    return INTACT[:at] + what + INTACT[at:]


def code_of_ones() -> bytes:
    """Add a code to the first Huffman table, which then has the one that consists of ones."""
    begin, end = segments(INTACT)[0xC4]
    counts, symbols = bytearray(INTACT[begin + 5 : begin + 21]), INTACT[begin + 21 : end]
    counts[max(length for length in range(16) if counts[length])] += 1
    symbols += bytes(symbol for symbol in range(12) if symbol not in symbols)[:1]
    length = (end - begin - 1).to_bytes(2, "big")
    return INTACT[: begin + 2] + length + INTACT[begin + 4 : begin + 5] + bytes(counts) + symbols + INTACT[end:]


def with_byte(at: int, value: int) -> bytes:
    return INTACT[:at] + bytes([value]) + INTACT[at + 1 :]


STEPS = segments(INTACT)[0xDB][0] + 5  # of the first quantisation table
BAD = {
    "a marker without a length": insert(b"\xff\xd0", 2),
    "a marker without a length that seems to have one": insert(b"\xff\x01\x00\x04ab", 2),
    "a second start": insert(b"\xff\xd8", 2),
    "a reserved marker": insert(b"\xff\xf0\x00\x02", 2),
    "bytes between segments": insert(b"ab", segments(INTACT)[0xC4][0]),
    "a longer frame": insert(b"\0", segments(INTACT)[0xC0][1]).replace(b"\xff\xc0\x00\x11", b"\xff\xc0\x00\x12"),
    "the same component twice": with_byte(segments(INTACT)[0xC0][0] + 13, 1),
    "a step of 0": with_byte(STEPS, 0),
    "a code of ones": code_of_ones(),
    "a restart marker out of sequence": with_byte(RESTARTS[2] + 1, 0xD0 + (INTACT[RESTARTS[2] + 1] + 3) % 8),
    "a restart marker twice": insert(INTACT[RESTARTS[2] : RESTARTS[2] + 2], RESTARTS[2]),
    "an interval that is not used up": insert(b"\x55", RESTARTS[2]),
    "an interval that ends early": INTACT[: RESTARTS[2] - 3] + INTACT[RESTARTS[2] :],
    "bytes after the last interval": insert(b"\x55\x55", len(INTACT) - 2),
    "another marker after the scan": INTACT[:-2] + b"\xff\xdb\x00\x02\xff\xd9",
}


@pytest.mark.parametrize("name", BAD)
def test_files_that_another_decoder_could_read_differently_are_declined(name: str) -> None:
    whole = (0, 0, 40, 50)
    assert decode_region(np.frombuffer(INTACT, np.uint8), whole) is not None
    assert decode_region(np.frombuffer(BAD[name], np.uint8), whole) is None


def test_coefficients_that_libjpeg_could_wrap_around_are_declined() -> None:
    """Where they are not too large, the pixels are the same."""
    data = encode(texture(40, 50, seed=0, noise=30.0), quality=100).tobytes()
    begin, end = segments(data)[0xDB]
    seen = set()
    for step in (1, 4, 12, 30, 90, 255):
        changed = np.frombuffer(data[: begin + 5] + bytes([step]) * (end - begin - 5) + data[end:], np.uint8)
        made = decode_region(changed, (0, 0, 40, 50))
        assert made is None or np.array_equal(made, pillow(changed))
        seen.add(made is None)
    assert seen == {True, False}


def test_a_file_in_which_another_decoder_finds_another_size_is_declined() -> None:
    data = encode(texture(40, 50, seed=0))
    assert decode_region(data, (0, 0, 8, 8), size=(40, 50)) is not None
    for size in ((41, 50), (40, 49), (50, 40)):
        assert decode_region(data, (0, 0, 8, 8), size=size) is None


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_damaged_files_never_crash_the_decoder(subsampling: str) -> None:
    """Random bytes in the header and in the scan give pixels, None or a ValueError."""
    rng = np.random.default_rng(0)
    intact = encode(texture(48, 64, seed=0), subsampling=subsampling, restart_marker_blocks=3)
    rejected = 0
    for number in range(1500):
        data = intact.copy()
        positions = rng.integers(2, 700 if number % 2 else len(data), rng.integers(1, 6))
        data[positions] = rng.integers(0, 256, len(positions))
        if number % 5 == 0:
            data = data[: rng.integers(0, len(data))]
        try:
            scale = int(rng.choice([1, 2, 4, 8])) if number % 3 == 0 else 1
            made = decode_region(data, (8, 8, 40, 48), scale)
        except ValueError:  # according to the damaged header, the image is smaller
            rejected += 1
        else:
            rejected += made is None
    assert 0 < rejected < 1500


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (0, 0, 41, 5), (0, 46, 5, 5), (0, 0, 0, 5), (2**31 - 1, 0, 5, 5)])
def test_a_region_outside_the_image_is_rejected(region: tuple[int, int, int, int]) -> None:
    data = encode(texture(40, 50, seed=0))
    for call in (decode_region, read_codes):
        with pytest.raises(ValueError, match="within the image"):
            call(data, region)
        with pytest.raises(ValueError, match="1, 2, 4 or 8"):
            call(data, (0, 0, 5, 5), 3)
