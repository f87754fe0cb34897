"""Pixels of every type, compared with the arithmetic in numpy."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from fastccsa.formats import pixels
from fastccsa.formats.decode import decode
from fastccsa.formats.errors import BrokenImageError

RAMP = np.linspace(0, 1, 61 * 84).reshape(61, 84)  # the picture that all grey files below show


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """Write a grey TIFF without Pillow: one strip, uncompressed; ``photometric`` is 0 for white is zero."""
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    height, width = values.shape
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8 * values.dtype.itemsize),
        (259, 3, 1, 1),
        (262, 3, 1, tags.get("photometric", 1)),
        (273, 4, 1, 8),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, values.nbytes),
        (339, 3, 1, kind),
    ]
    directory = struct.pack("<H", len(entries))
    for tag, size, count, value in entries:
        directory += struct.pack("<HHI", tag, size, count) + struct.pack("<I", value)  # a SHORT is in the first half
    return struct.pack("<2sHI", b"II", 42, 8 + values.nbytes) + values.tobytes() + directory + bytes(4)


def assert_grey(content: bytes, expected: np.ndarray, tolerance: float = 0.51) -> None:
    """Compare with levels that need not be rounded."""
    found = np.asarray(decode(content))
    assert found.dtype == np.uint8
    for channel in range(3):
        assert np.abs(found[..., channel].astype(float) - expected).max() <= tolerance


# Values in a file, and the top of the scale that they are on.
SCALES = {
    "float32 from 0 to 1": (RAMP.astype(np.float32), 1),
    "float64 from 0 to 1": (RAMP, 1),
    "float32 to 0.8": (0.8 * RAMP.astype(np.float32), 1),
    "float32 from 0 to 255": ((255 * RAMP).astype(np.float32), 255),
    "float32 from 0 to 4095": ((4095 * RAMP).astype(np.float32), 4095),
    "float32 from 0 to 65535": ((65535 * RAMP).astype(np.float32), 65535),
    "uint16 from 0 to 255": ((255 * RAMP).astype(np.uint16), 255),
    "uint16 of 12 bits": ((4095 * RAMP).astype(np.uint16), 4095),
    "uint16": ((65535 * RAMP).astype(np.uint16), 65535),
    "int8": ((127 * RAMP).astype(np.int8), 255),
    "int16 from 0 to 255": ((255 * RAMP).astype(np.int16), 255),
    "int32 from 0 to 255": ((255 * RAMP).astype(np.int32), 255),
    "int32 from 0 to 65535": ((65535 * RAMP).astype(np.int32), 65535),
    "uint32 from 0 to 255": ((255 * RAMP).astype(np.uint32), 255),
    "uint32": ((4294967295 * RAMP).astype(np.uint32), 4294967295),
}


@pytest.mark.parametrize("name", SCALES)
def test_grey_of_a_tiff_is_on_the_smallest_usual_scale(name: str) -> None:
    values, top = SCALES[name]
    if values.dtype == np.float64:
        pytest.importorskip("tifffile")
    assert_grey(tiff(values), values.astype(np.float64) * 255 / top)


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int32, np.int8])
def test_negative_values_show_the_range_of_the_image(dtype: type) -> None:
    scale = 1 if dtype == np.int8 else 20
    values = (scale * (200 * RAMP - 90)).astype(dtype)
    low, high = float(values.min()), float(values.max())
    assert_grey(tiff(values), (values - low) * 255 / (high - low))


def test_floats_may_overshoot_their_scale_a_little_and_are_clipped() -> None:
    values = (1.06 * RAMP - 0.03).astype(np.float32)
    assert_grey(tiff(values), np.clip(255 * values, 0, 255))


def test_values_that_are_not_finite_do_not_change_the_others() -> None:
    values = RAMP.astype(np.float32)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    expected = 255 * RAMP
    expected[0, :3] = 0, 255, 0
    assert_grey(tiff(values), expected)
    with pytest.raises(BrokenImageError, match="no pixel has a finite value"):
        decode(tiff(np.full((4, 4), np.nan, np.float32)))


def test_a_constant_picture_is_on_its_scale() -> None:
    assert_grey(tiff(np.full((4, 4), 0.5, np.float32)), np.full((4, 4), 127.5))
    assert_grey(tiff(np.full((4, 4), -7, np.int16)), np.zeros((4, 4)))


@pytest.mark.parametrize(
    "values", [(65535 * RAMP).astype(np.uint16), RAMP.astype(np.float32)], ids=["uint16", "float32"]
)
def test_white_may_be_zero(values: np.ndarray) -> None:
    top = 1 if values.dtype.kind == "f" else 65535
    assert_grey(tiff(values, photometric=0), 255 - 255 * values.astype(np.float64) / top)


def test_strips_are_put_together_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_STRIP", 100)
    assert_grey(tiff((65535 * RAMP).astype(np.uint16)), 255 * RAMP, tolerance=0.52)


def test_16_bit_png_and_pgm() -> None:
    values = (65535 * RAMP).astype(np.uint16)
    assert_grey(encode(Image.fromarray(values), "PNG"), values / 257)
    assert_grey(b"P5 84 61 65535\n" + values.astype(">u2").tobytes(), values / 257)


def test_bits_and_few_levels() -> None:
    bits = RAMP > 0.5
    for kind in ("PNG", "TIFF", "BMP"):
        assert_grey(encode(Image.fromarray(bits), kind), 255.0 * bits, 0)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    for depth in (2, 4):  # grey PNG of 4 and 16 levels
        levels = np.arange(8).reshape(2, 4) % 2**depth
        bits = np.unpackbits(levels.astype(np.uint8)[..., None], axis=-1)[..., -depth:]
        rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
        header = struct.pack(">IIBBBBB", 4, 2, depth, 0, 0, 0, 0)
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        content = b"\x89PNG\r\n\x1a\n" + chunks
        assert_grey(content, levels * 255 / (2**depth - 1), 0)


RNG = np.random.default_rng(5)
COLOURS = RNG.integers(0, 256, (61, 84, 3)).astype(np.uint8)
ALPHA = RNG.integers(0, 256, (61, 84)).astype(np.uint8)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    opacity = alpha[..., None] / 255.0
    return colours * opacity + 255 * (1 - opacity)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TGA", "WEBP"])
def test_transparent_images_are_shown_on_white(kind: str) -> None:
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    content = encode(Image.fromarray(np.dstack([COLOURS, ALPHA])), kind, **options)
    assert np.abs(np.asarray(decode(content)) - on_white(COLOURS, ALPHA)).max() <= 1


def test_transparent_grey_is_shown_on_white() -> None:
    grey = COLOURS[..., 0]
    content = encode(Image.fromarray(np.dstack([grey, ALPHA])), "PNG")
    assert_grey(content, on_white(grey[..., None], ALPHA)[..., 0], 1)


def test_an_opaque_image_keeps_its_colours() -> None:
    content = encode(Image.fromarray(np.dstack([COLOURS, np.full_like(ALPHA, 255)])), "PNG")
    np.testing.assert_array_equal(np.asarray(decode(content)), COLOURS)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP"])
def test_palettes_become_their_colours(kind: str) -> None:
    palette = RNG.integers(0, 256, (256, 3)).astype(np.uint8)
    index = RNG.integers(0, 256, (61, 84)).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(np.asarray(decode(encode(image, kind))), palette[index])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_white(kind: str) -> None:
    palette = RNG.integers(0, 250, (256, 3)).astype(np.uint8)
    index = RNG.integers(0, 256, (61, 84)).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette(palette.tobytes())
    expected = palette[index]
    expected[index == 7] = 255
    np.testing.assert_array_equal(np.asarray(decode(encode(image, kind, transparency=7))), expected)


def test_a_transparent_colour_without_a_palette_is_white() -> None:
    colours = COLOURS.copy()
    colours[:5] = (1, 2, 3)
    content = encode(Image.fromarray(colours), "PNG", transparency=(1, 2, 3))
    colours[:5] = 255
    np.testing.assert_array_equal(np.asarray(decode(content)), colours)


def test_cmyk_is_converted_without_a_profile() -> None:
    inks = RNG.integers(0, 256, (61, 84, 4)).astype(np.uint8)
    content = encode(Image.frombytes("CMYK", (84, 61), inks.tobytes()), "TIFF")
    light = 255 - inks.astype(float)
    expected = light[..., :3] * light[..., 3:] / 255
    assert np.abs(np.asarray(decode(content)) - expected).max() <= 1


def test_lab_is_named_as_broken() -> None:
    with pytest.raises(BrokenImageError, match="LAB colours are not read"):
        decode(encode(Image.frombytes("LAB", (84, 61), COLOURS.tobytes()), "TIFF"))


def test_other_numbers_are_named_as_broken() -> None:
    tifffile = pytest.importorskip("tifffile")
    stream = io.BytesIO()
    tifffile.imwrite(stream, RAMP.astype(np.complex64))
    with pytest.raises(BrokenImageError, match="a TIFF of complex64 in 3 dimensions is not read"):
        decode(stream.getvalue())


def test_ycbcr_becomes_rgb() -> None:
    smooth = Image.fromarray(COLOURS[:4, :6]).resize((84, 61), Image.Resampling.BICUBIC)
    content = encode(smooth.convert("YCbCr"), "TIFF")
    assert np.abs(np.asarray(decode(content)).astype(int) - np.asarray(smooth)).max() <= 3


# What tifffile decodes, because Pillow has no pixels of these types.
TYPES = {
    "float32 from 0 to 1": lambda c: (c / 255).astype(np.float32),
    "float32 from 0 to 255": lambda c: c.astype(np.float32),
    "float16 from 0 to 1": lambda c: (c / 255).astype(np.float16),
    "float64 from 0 to 1": lambda c: c / 255,
    "uint32 from 0 to 65535": lambda c: c.astype(np.uint32) * 257,
}


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("layout", ["RGB", "planes", "alpha", "grey"])
def test_colours_of_other_types_in_tiffs(name: str, layout: str) -> None:
    tifffile = pytest.importorskip("tifffile")
    values, expected = TYPES[name](COLOURS), COLOURS.astype(float)
    stream = io.BytesIO()
    if layout == "RGB":
        tifffile.imwrite(stream, values, photometric="rgb")
    elif layout == "planes":
        tifffile.imwrite(stream, np.moveaxis(values, -1, 0), photometric="rgb", planarconfig="separate")
    elif layout == "grey":
        tifffile.imwrite(stream, values[..., 0], photometric="minisblack")
        expected = np.repeat(expected[..., :1], 3, axis=2)
    else:
        opacity = TYPES[name](ALPHA)
        if values.dtype == np.uint32:
            opacity = ALPHA.astype(np.uint32) * 16843009  # alpha has the scale of its type
        tifffile.imwrite(stream, np.dstack([values, opacity]), photometric="rgb", extrasamples=["unassalpha"])
        expected = on_white(COLOURS, ALPHA)
    found = np.asarray(decode(stream.getvalue()))
    assert np.abs(found - expected).max() <= 1.01


def test_a_premultiplied_tiff_is_shown_on_white() -> None:
    tifffile = pytest.importorskip("tifffile")
    opacity = np.full((61, 84), 0.5, np.float32)
    stream = io.BytesIO()
    values = np.dstack([COLOURS / np.float32(255) * 0.5, opacity]).astype(np.float32)
    values[0, 0, :3] = 1 / 255 * 0.5, 0, 0.5  # so that the scale is from 0 to 1
    tifffile.imwrite(stream, values, photometric="rgb", extrasamples=["assocalpha"])
    expected = 255 * values[..., :3] + 255 * (1 - opacity[..., None])
    assert np.abs(np.asarray(decode(stream.getvalue())) - expected).max() <= 2


def test_only_the_first_picture_of_a_file_is_shown() -> None:
    first, second = Image.fromarray(COLOURS), Image.new("RGB", (10, 10))
    for kind in ("TIFF", "WEBP", "PNG"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encode(first, kind, save_all=True, append_images=[second.resize(first.size)], **options)
        np.testing.assert_array_equal(np.asarray(decode(content)), COLOURS)


def test_pillow_has_no_type_of_its_own_for_unsigned_32_bits() -> None:
    """If it gets one, `_deep_grey` needs no view."""
    assert TiffImagePlugin.OPEN_INFO[(b"II", 1, (1,), 1, (32,), ())][0] == "I"
