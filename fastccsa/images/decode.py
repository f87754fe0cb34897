"""Reading of image files for the backends: as they are if every backend decodes them alike, otherwise as pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastccsa.formats.decode import decode, open_image, plain, upright_rgb
from fastccsa.formats.errors import BrokenImageError
from fastccsa.formats.files import read_file
from fastccsa.formats.orientation import SIDEWAYS, UPRIGHT, orientation_of

__all__ = ["BrokenImageError", "EncodedImage", "decode", "read_image", "uncompressed"]

Bytes = npt.NDArray[np.uint8]

# DALI decodes these formats to the same pixels as Pillow; all others are passed to it as uncompressed pixels.
_DALI_FORMATS = frozenset({"JPEG", "MPO", "PNG", "BMP", "WEBP"})
_DALI_MODES = frozenset({"1", "L", "P", "RGB", "CMYK"})
_PNG_BIT_DEPTH = 24  # offset of the bit depth in a PNG file
# The end markers of complete files, which are searched for in the last _TAIL bytes, as some writers append padding.
_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096
_LARGE = 4_000_000  # pixels, 12 MB as RGB


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is passed to a backend.

    Attributes:
        data: content of the file, or of one with the same pixels, uint8 [n].
        height: height in pixels of the upright image (EXIF orientation applied).
        width: width in pixels of the upright image.
        upright: whether the pixels are stored upright, so that no EXIF orientation needs to be applied.
        is_common: whether every backend decodes ``data`` to the same pixels; otherwise only `decode` may be used.
        is_file: whether ``data`` is the file as it is, not pixels that were decoded from it.
    """

    data: Bytes
    height: int
    width: int
    upright: bool = True
    is_common: bool = True
    is_file: bool = True


def read_image(path: str | os.PathLike[str]) -> EncodedImage:
    """Read a file and validate it as far as possible without decoding it.

    What DALI cannot decode, or decodes differently from `fastccsa.formats` (GIF, 16-bit grey, transparency, damaged
    EXIF data), is decoded here and returned as uncompressed RGB, unless it is large: then it stays as it is, so that
    the pixels of a batch need not be in memory at once. The format is detected from the content, never from the file's
    name.

    Raises:
        BrokenImageError: the file is missing, unreadable, not a regular file, empty, truncated, not an image of a
            format that is read, or larger than `fastccsa.formats` allows.
    """
    content = read_file(path)
    image = open_image(content)
    if image.format == "PNG" and b"eXIf" in content:
        return _as_pixels(upright_rgb(image))  # the chunk may be after the pixels, which opening does not read
    orientation, is_certain = orientation_of(image)
    height, width = image.size if orientation in SIDEWAYS else image.size[::-1]
    data = np.frombuffer(content, np.uint8)
    if not is_certain or not _is_common(image, content):
        if width * height > _LARGE:
            return EncodedImage(data, height, width, upright=False, is_common=False)
        return _as_pixels(upright_rgb(image))
    encoded = EncodedImage(data, height, width, orientation not in UPRIGHT)
    ending = _ENDINGS.get(image.format or "")
    if ending is not None and ending not in content[-_TAIL:]:
        decode(content)  # the file is unusual or truncated; decoding fails only if it is truncated
    return encoded


def uncompressed(encoded: EncodedImage) -> EncodedImage:
    """Decode an image, and return the same pixels as an uncompressed RGB file (PPM).

    Raises:
        BrokenImageError: the image cannot be decoded.
    """
    return _as_pixels(decode(encoded.data))


def _as_pixels(image: Image.Image) -> EncodedImage:
    return EncodedImage(plain(image), image.height, image.width, is_file=False)


def _is_common(image: Image.Image, content: bytes) -> bool:
    """Return whether every backend decodes this opened image to the same pixels, apart from its orientation."""
    if image.format not in _DALI_FORMATS or image.mode not in _DALI_MODES or image.has_transparency_data:
        return False
    if image.format == "WEBP" and "exif" in image.info:
        return False  # DALI fails on some that are not upright
    return not (image.format == "PNG" and content[_PNG_BIT_DEPTH] > 8)
