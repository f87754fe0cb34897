"""Reading of image files: their headers, and their pixels as decoded by Pillow."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Bytes = npt.NDArray[np.uint8]

# DALI decodes these formats to the same pixels as Pillow; all others are passed to it as uncompressed pixels.
_DALI_FORMATS = frozenset({"JPEG", "MPO", "PNG", "BMP", "PPM", "WEBP"})
_DALI_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "CMYK"})
_PNG_BIT_DEPTH = 24  # offset of the bit depth in a PNG file
# The end markers of complete files, which are searched for in the last _TAIL bytes, as some writers append padding.
_ENDINGS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096

_ORIENTATION = 0x0112  # EXIF tag
_SIDEWAYS = frozenset({5, 6, 7, 8})  # orientations that swap height and width
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImageError(Exception):
    """The file does not contain a decodable image; the message says why."""


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file.

    Attributes:
        data: content of the file, uint8 [n], in a format that every backend can decode.
        height: height in pixels of the upright image (EXIF orientation applied).
        width: width in pixels of the upright image.
        upright: whether the pixels are stored upright, so that no EXIF orientation needs to be applied.
    """

    data: Bytes
    height: int
    width: int
    upright: bool = True


def read_image(path: str | os.PathLike[str]) -> EncodedImage:
    """Read a file and validate it as far as possible without decoding it.

    Formats that DALI cannot decode, or decodes differently from Pillow (GIF, 16-bit grey), are decoded here and
    returned as uncompressed RGB. The format is detected from the content, never from the file's name.

    Raises:
        BrokenImageError: the file is missing, unreadable, empty, truncated, not an image, or larger than
            ``PIL.Image.MAX_IMAGE_PIXELS`` allows (a decompression bomb).
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise BrokenImageError(error.strerror or str(error)) from error
    if not content:
        raise BrokenImageError("the file is empty")
    encoded, dali_compatible = _inspect(content)
    return encoded if dali_compatible else uncompressed(encoded)


def uncompressed(encoded: EncodedImage) -> EncodedImage:
    """Decode an image with Pillow, and return the same pixels as an uncompressed RGB file (PPM).

    Raises:
        BrokenImageError: the image cannot be decoded.
    """
    image = decode(encoded.data)
    content = b"P6 %d %d 255\n" % image.size + image.tobytes()
    return EncodedImage(np.frombuffer(content, np.uint8), image.height, image.width)


def decode(data: Bytes) -> Image.Image:
    """Decode an image to upright 8-bit RGB with Pillow.

    Transparency is dropped, CMYK is converted without a profile, and 16-bit grey is scaled to 8 bits.

    Raises:
        BrokenImageError: the image cannot be decoded.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data.data))
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        image = _to_rgb(image)
    # Pillow's decoders raise many types of errors: OSError, SyntaxError, ValueError, struct.error, ...
    except Exception as error:
        raise BrokenImageError(_reason(error)) from error
    return image if turn is None else image.transpose(turn)


def _inspect(content: bytes) -> tuple[EncodedImage, bool]:
    """Validate the content of a file; also return whether DALI decodes it as Pillow does."""
    try:
        image = Image.open(io.BytesIO(content))
        if image.format == "PNG" and b"eXIf" in content:
            image.load()  # the chunk may be after the pixels, which opening does not read
        width, height = image.size
        orientation = _orientation(image)
        if orientation in _SIDEWAYS:
            width, height = height, width
    except Exception as error:
        raise BrokenImageError(_reason(error)) from error
    encoded = EncodedImage(np.frombuffer(content, np.uint8), height, width, orientation not in _UPRIGHT)
    ending = _ENDINGS.get(image.format or "")
    if ending is not None and ending not in content[-_TAIL:]:
        decode(encoded.data)  # the file is unusual or truncated; decoding fails only if it is truncated
    deep = image.format == "PNG" and content[_PNG_BIT_DEPTH] > 8
    return encoded, image.format in _DALI_FORMATS and image.mode in _DALI_MODES and not deep


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 (upright) if there is none. Other metadata is ignored, as in DALI."""
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return int(exif.get(_ORIENTATION, 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey to 255 instead of scaling it.
        grey = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.clip(np.rint(grey / 257), 0, 255).astype(np.uint8))
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return "a decompression bomb: more pixels than PIL.Image.MAX_IMAGE_PIXELS allows"
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return str(error) or type(error).__name__
