from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from sample_images import texture

from fastccsa.images.decode import BrokenImageError, decode, read_image

PICTURE = texture(61, 84, seed=3)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def exif_after_pixels() -> bytes:
    """Build a PNG with its EXIF chunk after the pixels, which the format allows."""
    content = encode(PICTURE, "PNG", exif=oriented(6))
    start = content.index(b"eXIf") - 4
    length = int.from_bytes(content[start : start + 4], "big") + 12
    chunk, rest = content[start : start + length], content[:start] + content[start + length :]
    end = rest.index(b"IEND") - 4
    return rest[:end] + chunk + rest[end:]


FILES = {
    "JPEG": encode(PICTURE, "JPEG", quality=90),
    "JPEG 4:2:0": encode(PICTURE, "JPEG", subsampling=2),
    "progressive JPEG": encode(PICTURE, "JPEG", progressive=True),
    "grey JPEG": encode(PICTURE.convert("L"), "JPEG"),
    "CMYK JPEG": encode(PICTURE.convert("CMYK"), "JPEG"),
    "padded JPEG": encode(PICTURE, "JPEG") + bytes(9),
    "JPEG with a long trailer": encode(PICTURE, "JPEG") + b"x" * 10_000,
    "several pictures (MPO)": encode(PICTURE, "MPO", save_all=True, append_images=[PICTURE.convert("L")]),
    "PNG": encode(PICTURE, "PNG"),
    "PNG with alpha": encode(PICTURE.convert("RGBA"), "PNG"),
    "PNG with grey and alpha": encode(PICTURE.convert("LA"), "PNG"),
    "PNG with palette": encode(PICTURE.convert("P"), "PNG"),
    "one-bit PNG": encode(PICTURE.convert("1"), "PNG"),
    "PNG with EXIF after the pixels": exif_after_pixels(),
    "BMP": encode(PICTURE, "BMP"),
    "PPM": encode(PICTURE, "PPM"),
    "WebP": encode(PICTURE, "WEBP", quality=80),
    "GIF": encode(PICTURE, "GIF"),
    "TIFF": encode(PICTURE, "TIFF", compression="tiff_lzw"),
    "rotated TIFF": encode(PICTURE, "TIFF", exif=oriented(6)),
    **{f"JPEG, orientation {n}": encode(PICTURE, "JPEG", exif=oriented(n)) for n in range(1, 9)},
    **{f"PNG, orientation {n}": encode(PICTURE, "PNG", exif=oriented(n)) for n in (3, 6)},
}


@pytest.mark.parametrize("name", FILES)
def test_pillow_and_dali_decode_the_same_upright_pixels(name: str, tmp_path: Path, decode_with_dali: Any) -> None:
    path = tmp_path / "image.jpg"  # the name does not matter
    path.write_bytes(FILES[name])
    image = read_image(path)
    pixels = np.asarray(decode(image.data))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.shape == (image.height, image.width, 3)
    np.testing.assert_array_equal(decode_with_dali(image.data), pixels)


def test_16_bit_grey_is_scaled_to_8_bits(tmp_path: Path, decode_with_dali: Any) -> None:
    grey = np.linspace(0, 65535, 61 * 84).reshape(61, 84).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(grey).save(path)
    image = read_image(path)
    pixels = np.asarray(decode(image.data))
    for channel in range(3):
        np.testing.assert_array_equal(pixels[..., channel], np.rint(grey / 257))
    np.testing.assert_array_equal(decode_with_dali(image.data), pixels)


def test_pillow_and_dali_decode_16_bit_colour_the_same(tmp_path: Path, decode_with_dali: Any) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    deep = np.random.default_rng(0).integers(0, 65536, (5, 6, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", 6, 5, 16, 2, 0, 0, 0)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    image = read_image(path)
    pixels = np.asarray(decode(image.data))
    assert np.abs(pixels - deep / 257).max() <= 1
    np.testing.assert_array_equal(decode_with_dali(image.data), pixels)


BROKEN = {
    "empty": (b"", "empty"),
    "no image": (b"<html>not found</html>", "not an image"),
    "JPEG without its end": (FILES["JPEG"][:-40], "truncated"),
    "half a JPEG": (FILES["JPEG"][: len(FILES["JPEG"]) // 2], "truncated"),
    "start of a JPEG": (FILES["JPEG"][:100], "."),
    "progressive JPEG without its end": (FILES["progressive JPEG"][:-300], "truncated"),
    "PNG without its end": (FILES["PNG"][:-40], "truncated"),
    "start of a PNG": (FILES["PNG"][:300], "truncated"),
    "start of a GIF": (FILES["GIF"][:300], "."),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_content_is_reported(name: str, tmp_path: Path) -> None:
    content, reason = BROKEN[name]
    path = tmp_path / "image.jpg"
    path.write_bytes(content)
    with pytest.raises(BrokenImageError, match=reason):
        read_image(path)


def test_a_missing_file_and_a_folder_are_reported(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match="No such file"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(BrokenImageError, match="directory"):
        read_image(tmp_path)


def test_a_decompression_bomb_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (4000, 4000)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(BrokenImageError, match="bomb"):
        read_image(path)
