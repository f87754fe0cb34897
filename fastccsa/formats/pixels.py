"""Pixels of any type as the 8-bit RGB that a person expects to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastccsa.formats.errors import BrokenImageError

# Most pixels of an image. As RGB they take 240 MB, or 320 MB in Pillow. Pillow's own limit is 179 million.
MAX_PIXELS = 80_000_000

# Largest values of the usual scales of grey. A file does not say which one it uses, so the smallest that holds all of
# its values is taken. A picture that is wrong by one step of this list would be all but black.
_TOPS = (255, 4095, 65535)
_FLOAT_TOPS = (1, *_TOPS)
_OVERSHOOT = 0.05  # how far floats may leave their scale, as after a resampling: they are clipped

_STRIP = 1 << 20  # pixels converted at a time, so that large images need no large temporary arrays

_BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
_UNSIGNED, _SIGNED, _WHITE_IS_ZERO = 1, 2, 0

Values = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]


def check_size(width: int, height: int) -> None:
    """Refuse images that would take too much memory.

    Raises:
        BrokenImageError: the image has no pixels, or more than `MAX_PIXELS`.
    """
    if width < 1 or height < 1:
        raise BrokenImageError(f"the image is empty: {width} x {height} pixels")
    if width * height > MAX_PIXELS:
        raise BrokenImageError(
            f"too large: {width} x {height} pixels, and at most {MAX_PIXELS / 1e6:g} million are decoded; reduce it"
        )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a loaded image to 8-bit RGB; an image that is RGB already is returned itself.

    Transparent images are shown on white. CMYK and YCbCr are converted without a profile. Grey of other types than
    bytes is scaled as in `grey_levels`.

    Raises:
        BrokenImageError: no pixel has a finite value, or the colours are LAB.
    """
    if image.mode == "LAB":  # Pillow converts it to black
        raise BrokenImageError("LAB colours are not read; convert the image to RGB")
    kind = _tiff_tag(image, _SAMPLE_FORMAT, _UNSIGNED)
    if image.mode == "F" or image.mode.startswith("I") or (image.mode == "L" and kind == _SIGNED):
        return Image.fromarray(_numbers_to_grey(image, kind)).convert("RGB")
    if image.has_transparency_data:
        if image.mode != "RGBA":
            image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        picture = Image.new("RGB", image.size, "white")
        picture.paste(image, mask=image)
        return picture
    return image if image.mode == "RGB" else image.convert("RGB")


def grey_levels(values: Values) -> Bytes:
    """Convert grey values of any real type, [height, width] or more dimensions, to uint8 of the same shape.

    Integers are on the smallest scale from 0 to 255, 4095 (12 bits) or 65535 that holds them all; floats also from 0 to
    1. If none does, or if there are negative values, the range of the image becomes 0 to 255. NaN becomes 0.

    Raises:
        BrokenImageError: no value is finite.
    """
    low, high = value_range(values)
    slack = _OVERSHOOT if values.dtype.kind == "f" else 0.0
    for top in _FLOAT_TOPS if values.dtype.kind == "f" else _TOPS:
        if low >= -slack * high and high <= (1 + slack) * top:
            return stretch(values, 0.0, float(top))
    return stretch(values, low, high)


def value_range(values: Values) -> tuple[float, float]:
    """Return the lowest and the highest finite value.

    Raises:
        BrokenImageError: there is none.
    """
    lows, highs = [], []
    for strip in _strips(values):
        finite = strip[np.isfinite(strip)] if strip.dtype.kind == "f" else strip
        if finite.size:
            lows.append(float(finite.min()))
            highs.append(float(finite.max()))
    if not lows:
        raise BrokenImageError("no pixel has a finite value")
    return min(lows), max(highs)


def stretch(values: Values, low: float, high: float) -> Bytes:
    """Map ``low`` to 0 and ``high`` to 255, linearly with rounding, and clip the rest; if they are equal, to 0."""
    scale = 255.0 / (high - low) if high > low else 0.0
    return by_strips(values, lambda strip: (strip.astype(np.float64) - low) * scale)


def by_strips(values: Values, levels: Callable[[Values], Values]) -> Bytes:
    """Apply a function of values to grey levels from 0 to 255, and round its results to uint8."""
    out = np.empty(values.shape, np.uint8)
    flat = out.reshape(-1)
    start = 0
    with np.errstate(over="ignore", invalid="ignore"):
        for strip in _strips(values):
            flat[start : start + strip.size] = np.rint(np.clip(np.nan_to_num(levels(strip), nan=0.0), 0, 255))
            start += strip.size
    return out


def _strips(values: Values) -> Iterator[Values]:
    flat = values.reshape(-1)
    for start in range(0, flat.size, _STRIP):
        yield flat[start : start + _STRIP]


def _numbers_to_grey(image: Image.Image, kind: int) -> Bytes:
    """Return the grey levels of an image with other numbers than bytes; ``kind`` is the sample format of a TIFF."""
    values = np.asarray(image)
    # Pillow has no modes of these types.
    if image.mode == "L":
        values = values.view(np.int8)
    elif image.mode == "I" and _tiff_tag(image, _BITS, 0) == 32 and kind == _UNSIGNED:
        values = values.view(np.uint32)
    levels = grey_levels(values)
    return 255 - levels if _tiff_tag(image, _PHOTOMETRIC, None) == _WHITE_IS_ZERO else levels


def _tiff_tag(image: Image.Image, tag: int, default: Any) -> Any:
    """Return the first value of a tag; ``default`` if there is none, or if the image is no TIFF."""
    value = getattr(image, "tag_v2", {}).get(tag, default)
    return value[0] if isinstance(value, tuple) and value else value
