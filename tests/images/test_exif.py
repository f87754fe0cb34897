"""Damaged EXIF data costs the orientation, never the image, and every decoder shows the same."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_images import texture

from fastccsa.formats.decode import decode
from fastccsa.images import decode as decode_module
from fastccsa.images.decode import read_image
from fastccsa.images.jpeg import decode_region

PICTURE = texture(61, 84, seed=3)


def directory(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Return EXIF data with one directory of entries: tag, type, count and the 4 bytes of the value."""
    packed = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + packed + bytes(4)


def short(value: int) -> bytes:
    return struct.pack("<HH", value, 0)


SIDEWAYS = (0x0112, 3, 1, short(6))
EXIF = {
    "valid": (directory(SIDEWAYS), True),
    "valid, as LONG": (directory((0x0112, 4, 1, struct.pack("<I", 6))), True),
    "after an entry that leads nowhere": (directory((0x010F, 2, 2**30, short(8)), SIDEWAYS), True),
    "orientation 0": (directory((0x0112, 3, 1, short(0))), False),
    "orientation 9": (directory((0x0112, 3, 1, short(9))), False),
    "text": (directory((0x0112, 2, 4, b"six\0")), False),
    "a fraction": (directory((0x0112, 11, 1, struct.pack("<f", 6))), False),
    "two values": (directory((0x0112, 3, 2, struct.pack("<HH", 6, 3))), False),
    "two entries": (directory(SIDEWAYS, (0x0112, 3, 1, short(3))), False),
    "more values than the file has": (directory((0x0112, 3, 2**30, short(6))), False),
    "cut short": (directory(SIDEWAYS)[:16], False),
    "leads nowhere": (b"II*\0" + struct.pack("<I", 2**30), False),
    "65535 entries": (b"II*\0" + struct.pack("<IH", 8, 65535), False),
    "no EXIF": (b"hello world, this is something else", False),
    "zeros": (bytes(100), False),
}


def assert_same_everywhere(path: Path, decode_with_dali: Any) -> np.ndarray:
    """Assert that the decoders agree, and return the pixels."""
    image = read_image(path)
    pixels = np.asarray(decode(image.data))
    assert pixels.shape == (image.height, image.width, 3)
    np.testing.assert_array_equal(decode_with_dali(image.data), pixels)
    if image.upright:
        native = decode_region(image.data, [0, 0, image.height, image.width])
        if native is not None:
            np.testing.assert_array_equal(native, pixels)
    return pixels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
@pytest.mark.parametrize("name", EXIF)
def test_damaged_exif_costs_the_orientation_only(name: str, kind: str, tmp_path: Path, decode_with_dali: Any) -> None:
    data, is_valid = EXIF[name]
    path = tmp_path / "image.jpg"
    options = {"lossless": True} if kind == "WEBP" else {}
    PICTURE.save(path, kind, exif=b"Exif\0\0" + data, **options)
    pixels = assert_same_everywhere(path, decode_with_dali)
    PICTURE.save(path, kind, **options)
    stored = Image.open(path).convert("RGB")
    expected = stored.transpose(Image.Transpose.ROTATE_270) if is_valid else stored
    np.testing.assert_array_equal(pixels, np.asarray(expected))


def test_a_large_image_with_doubtful_exif_is_left_to_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "_LARGE", 100)
    data, _ = EXIF["after an entry that leads nowhere"]
    PICTURE.save(tmp_path / "image.jpg", exif=b"Exif\0\0" + data)
    image = read_image(tmp_path / "image.jpg")
    assert not image.is_common
    assert not image.upright  # so that the native decoder does not take it
    assert (image.height, image.width) == (84, 61)
    assert decode(image.data).size == (61, 84)


@pytest.mark.filterwarnings("ignore:.*")  # Pillow warns of what it finds in the damaged data
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_no_damage_of_the_metadata_costs_the_image(kind: str, tmp_path: Path, decode_with_dali: Any) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = 6, "Maker", "Model"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    stream = io.BytesIO()
    PICTURE.save(stream, kind, exif=exif, **({"save_all": True, "append_images": [PICTURE]} if kind == "MPO" else {}))
    content = stream.getvalue()
    path, rng = tmp_path / "image.jpg", random.Random(0)
    marks = [content.index(mark) for mark in ((b"Exif", b"MPF") if kind == "MPO" else (b"Exif",))]
    for start in marks:
        (length,) = struct.unpack(">H", content[start - 2 : start])
        for _ in range(100):
            damaged = bytearray(content)
            for _ in range(rng.choice((1, 1, 2, 5, 20))):
                damaged[rng.randrange(start, start + length - 2)] = rng.choice((0, 255, rng.randrange(256)))
            path.write_bytes(damaged)
            assert_same_everywhere(path, decode_with_dali)


def test_a_tiff_with_a_damaged_orientation_is_shown(tmp_path: Path) -> None:
    for kind, count, value in ((2, 4, b"six\0"), (3, 1, short(9)), (3, 1, short(0))):
        path = tmp_path / "image.tif"
        PICTURE.save(path, "TIFF", tiffinfo={0x0112: 1})
        content = bytearray(path.read_bytes())
        (start,) = struct.unpack_from("<I", content, 4)
        (entries,) = struct.unpack_from("<H", content, start)
        for entry in range(start + 2, start + 2 + 12 * entries, 12):
            if struct.unpack_from("<H", content, entry) == (0x0112,):
                struct.pack_into("<HI4s", content, entry + 2, kind, count, value)
        path.write_bytes(content)
        np.testing.assert_array_equal(np.asarray(decode(read_image(path).data)), np.asarray(PICTURE))
