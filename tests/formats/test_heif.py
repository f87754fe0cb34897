"""HEIC pictures, where pillow-heif is installed."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image

from fastccsa.formats import pixels
from fastccsa.formats.decode import decode
from fastccsa.formats.errors import BrokenImageError, NoDecoderError

pillow_heif = pytest.importorskip("pillow_heif")

SMALL = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
PICTURE = Image.fromarray(SMALL).resize((96, 64), Image.Resampling.BICUBIC)


def heic(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    pillow_heif.from_pillow(image).save(stream, quality=-1, **options)  # lossless, apart from the conversion to YCbCr
    return stream.getvalue()


def test_a_picture_is_decoded() -> None:
    found = np.asarray(decode(heic(PICTURE, chroma=444))).astype(int)
    assert np.abs(found - np.asarray(PICTURE)).max() <= 3


def test_it_is_upright_once() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = np.asarray(decode(heic(PICTURE, chroma=444, exif=exif.tobytes()))).astype(int)
    expected = np.asarray(PICTURE.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 3


def test_transparency_is_white() -> None:
    alpha = np.full((64, 96), 255, np.uint8)
    alpha[:30] = 0
    image = Image.fromarray(np.dstack([np.asarray(PICTURE), alpha]))
    found = np.asarray(decode(heic(image, chroma=444))).astype(int)
    assert (found[:28] == 255).all()
    assert np.abs(found[34:] - np.asarray(PICTURE)[34:]).max() <= 3


def test_damaged_and_large_pictures_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    content = heic(PICTURE)
    for cut in (40, len(content) // 2):
        with pytest.raises(BrokenImageError):
            decode(content[:cut])
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1000)
    with pytest.raises(BrokenImageError, match="too large: 96 x 64"):
        decode(content)


def test_pillow_itself_is_left_as_it_is() -> None:
    decode(heic(PICTURE))
    assert "HEIF" not in Image.OPEN


def test_without_pillow_heif_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = heic(PICTURE)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(NoDecoderError, match=r"no decoder for HEIC is installed: pip install 'fastccsa\[formats\]'"):
        decode(content)
