"""Decoding of image files to upright 8-bit RGB, for the formats of the table and no others."""

from __future__ import annotations

import io
import re

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fastccsa.formats import dicom, heif, tiff
from fastccsa.formats.errors import BrokenImageError
from fastccsa.formats.orientation import UPRIGHT, orientation_of
from fastccsa.formats.pixels import check_size, to_rgb
from fastccsa.formats.table import PLUGINS, require_decoder

Content = bytes | memoryview | npt.NDArray[np.uint8]

# Loads the plugins now, because that is not thread-safe. Pillow would otherwise try all of them on every file, among
# them one that starts Ghostscript.
Image.init()
_PLUGINS = [name for name in PLUGINS if name in Image.OPEN]  # older releases of Pillow do not have all

_HEADER = re.compile(rb"P6 (\d{1,9}) (\d{1,9}) 255\n")  # of the files that `plain` writes
_LONGEST_HEADER = 40
_ROWS = 256  # rows that `plain` copies at a time


def decode(content: Content) -> Image.Image:
    """Decode the content of an image file to upright 8-bit RGB. See `to_rgb` for other types of pixels.

    Raises:
        NoDecoderError: the decoder for it is not installed.
        BrokenImageError: the image cannot be decoded.
    """
    data = as_bytes(content)
    return _read_plain(data) or upright_rgb(open_image(data))


def open_image(content: bytes | memoryview) -> Image.Image:
    """Open the content of an image file. Pillow reads only the header now; other decoders read the pixels too.

    Raises:
        NoDecoderError, BrokenImageError: as for `decode`.
    """
    try:
        if dicom.is_dicom(content):
            return dicom.decode(content)
        if heif.is_heif(content):
            return heif.decode(content)
        try:
            image: Image.Image = Image.open(io.BytesIO(content), formats=_PLUGINS)
        except UnidentifiedImageError:
            if tiff.is_tiff(content):
                return tiff.decode(content)
            require_decoder(content)
            raise
        check_size(*image.size)
        return image
    # Decoders raise many types of errors: OSError, SyntaxError, TypeError, RuntimeError, struct.error, ...
    except Exception as error:
        raise _broken(error) from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Load an opened image, and return it as upright RGB. If its EXIF data is damaged, it is taken to be upright.

    Raises:
        BrokenImageError: the image cannot be decoded.
    """
    try:
        image.load()
        check_size(*image.size)  # a file may contain more than its header says
        turn = UPRIGHT.get(orientation_of(image).value)
        image = to_rgb(image)
        return image if turn is None else image.transpose(turn)
    except Exception as error:
        raise _broken(error) from error


def plain(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return an RGB image as the content of an uncompressed file (PPM), which every backend decodes: uint8 [n]."""
    header = b"P6 %d %d 255\n" % image.size
    width, height = image.size
    content = np.empty(len(header) + 3 * width * height, np.uint8)
    content[: len(header)] = np.frombuffer(header, np.uint8)
    rows = content[len(header) :].reshape(height, width, 3)
    # By strips, because Pillow copies all pixels that it hands out.
    for top in range(0, height, _ROWS):
        bottom = min(top + _ROWS, height)
        rows[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return content


def as_bytes(content: Content) -> bytes | memoryview:
    """Return the content without a copy. `io.BytesIO` shares the memory of ``bytes``, and copies other buffers."""
    if isinstance(content, (bytes, memoryview)):
        return content
    base = content.base
    return base if isinstance(base, bytes) and len(base) == content.size else content.data


def _read_plain(data: bytes | memoryview) -> Image.Image | None:
    """Read what `plain` wrote, with one copy less than Pillow; None for anything else."""
    header = _HEADER.match(data[:_LONGEST_HEADER])
    if header is None:
        return None
    width, height = int(header[1]), int(header[2])
    if not 0 < 3 * width * height == len(data) - header.end():
        return None
    pixels = np.frombuffer(data, np.uint8, offset=header.end())
    return Image.frombuffer("RGB", (width, height), pixels, "raw", "RGB", 0, 1)


def _broken(error: Exception) -> BrokenImageError:
    if isinstance(error, BrokenImageError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        return BrokenImageError("a decompression bomb: more pixels than PIL.Image.MAX_IMAGE_PIXELS allows")
    if isinstance(error, UnidentifiedImageError):
        return BrokenImageError("not an image of a known format")
    return BrokenImageError(str(error) or type(error).__name__)
