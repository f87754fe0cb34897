"""TIFFs whose pixels Pillow cannot hold, such as floating-point colours, decoded by tifffile where it is installed."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from fastccsa.formats.errors import BrokenImageError, NoDecoderError
from fastccsa.formats.pixels import MAX_PIXELS, check_size, grey_levels, value_range
from fastccsa.system.extras import pip_command

_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # photometric interpretations
_PREMULTIPLIED, _ALPHA = 1, 2  # kinds of extra samples
_MAX_BYTES_PER_PIXEL = 16


def is_tiff(content: bytes | memoryview) -> bool:
    """Return whether a file's content is TIFF or BigTIFF."""
    return bytes(content[:4]) in _STARTS


def decode(content: bytes | memoryview) -> Image.Image:
    """Decode the first picture of a TIFF to 8-bit grey, RGB or RGBA. All colours of a picture have the same scale.

    Raises:
        NoDecoderError: tifffile is not installed.
        BrokenImageError: the picture is too large, or is neither grey nor RGB.
    """
    try:
        import tifffile
    except ImportError as error:
        raise NoDecoderError(f"no decoder for this type of TIFF is installed: {pip_command('formats')}") from error
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        check_size(page.imagewidth, page.imagelength)
        if page.imagedepth != 1 or page.nbytes > _MAX_BYTES_PER_PIXEL * MAX_PIXELS:
            raise BrokenImageError(f"a TIFF of {page.nbytes / 1e6:,.0f} MB in {page.imagedepth} planes is not read")
        photometric, kinds = int(page.photometric), tuple(map(int, page.extrasamples))
        values = page.asarray()
        if "S" in page.axes:
            values = np.moveaxis(values, page.axes.index("S"), -1)
    if values.ndim == 2:
        values = values[..., None]
    if values.dtype.kind not in "iuf" or values.ndim != 3:
        raise BrokenImageError(f"a TIFF of {values.dtype} in {values.ndim} dimensions is not read")
    if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        levels = grey_levels(values[..., 0])
        return Image.fromarray(255 - levels if photometric == _WHITE_IS_ZERO else levels)
    if photometric != _RGB or values.shape[2] < 3:
        raise BrokenImageError(f"a TIFF with photometric interpretation {photometric} is not read")
    colours = grey_levels(values[..., :3])
    if values.shape[2] == 3 or not kinds or kinds[0] not in (_PREMULTIPLIED, _ALPHA):
        return Image.fromarray(colours)
    pixels = np.dstack([colours, _opacity(values[..., 3])])
    if kinds[0] == _PREMULTIPLIED:
        return Image.frombuffer("RGBa", pixels.shape[1::-1], pixels.tobytes(), "raw", "RGBa", 0, 1).convert("RGBA")
    return Image.fromarray(pixels)


def _opacity(values: np.ndarray) -> np.ndarray:
    """Return opacity as uint8. Its scale is that of the type; floats are from 0 to 1, or else to 255."""
    if values.dtype.kind == "f" and value_range(values)[1] <= 1:
        return np.rint(255 * np.nan_to_num(values).clip(0, 1)).astype(np.uint8)
    top = 255 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    return np.rint(255 / top * values.clip(0, top)).astype(np.uint8)
