"""The orientation of an image according to its EXIF data."""

from __future__ import annotations

import struct
from typing import NamedTuple

from PIL import Image

SIDEWAYS = frozenset({5, 6, 7, 8})  # orientations that swap height and width
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_TAG = 0x0112
_INTEGERS = {3: "H", 4: "I"}  # the types SHORT and LONG, and their codes in `struct`
_SIZES = (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8)  # bytes per value of the types 1 to 12
_ENTRY = 12  # bytes of an entry of a directory
_INLINE = 4  # bytes of values that an entry holds itself
_PREFIX = b"Exif\0\0"


class Orientation(NamedTuple):
    """An orientation, 1 to 8.

    Attributes:
        value: the orientation; 1 (upright) if there is none, or if it is damaged.
        is_certain: whether every decoder finds the same one. They disagree about damaged EXIF data.
    """

    value: int = 1
    is_certain: bool = True


def orientation_of(image: Image.Image) -> Orientation:
    """Return the orientation of an opened image. Metadata other than EXIF is ignored, as in DALI."""
    data = image.info.get("exif", b"")
    while data.startswith(_PREFIX):
        data = data[len(_PREFIX) :]
    if not data:
        return Orientation()
    try:
        return _read(data)
    except struct.error:  # the data is too short
        return Orientation(is_certain=False)


def _read(data: bytes) -> Orientation:
    """Read the orientation from the first directory of EXIF data."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return Orientation(is_certain=False)
    (start,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, start)
    values: list[int] = []
    is_certain = True
    for entry in range(start + 2, start + 2 + _ENTRY * count, _ENTRY):
        tag, kind, length, offset = struct.unpack_from(order + "HHII", data, entry)
        size = length * _SIZES[kind - 1] if 1 <= kind <= len(_SIZES) else len(data)
        is_certain &= size <= _INLINE or offset + size <= len(data)
        if tag == _TAG and kind in _INTEGERS and length == 1:
            values += struct.unpack_from(order + _INTEGERS[kind], data, entry + 8)
        elif tag == _TAG:
            is_certain = False
    if len(values) != 1 or not 1 <= values[0] <= 8:
        return Orientation(is_certain=is_certain and not values)
    return Orientation(values[0], is_certain)
