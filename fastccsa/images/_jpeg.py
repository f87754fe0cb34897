"""The decoder of regions of baseline JPEGs that is implemented in ``csrc/jpeg``."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_int, c_size_t, c_void_p

import numpy as np
from numpy.typing import NDArray

from fastccsa.system.native import address, check, load

__all__ = ["decode_region", "read_codes"]

_REGION = (c_int, c_int, c_int, c_int, c_int)
_library = load(
    __file__,
    "libjpeg_regions.so",
    {
        "fastccsa_jpeg_decode": (
            c_char_p,
            (c_void_p, c_size_t, c_int, c_int, *_REGION, c_void_p, POINTER(c_bool)),
        ),
        "fastccsa_jpeg_read_codes": (c_char_p, (c_void_p, c_size_t, *_REGION, POINTER(c_bool))),
    },
)
MAX_SIDE = 65535  # of a JPEG


def decode_region(
    data: NDArray[np.uint8], size: tuple[int, int], top: int, left: int, height: int, width: int, scale: int
) -> NDArray[np.uint8] | None:
    """Decode a region to uint8 ``[height, width, 3]``; None if this decoder cannot read the file.

    ``data`` is the content of the file, uint8, and ``size`` the height and width of its image, or (0, 0) if they are
    not known. The region is in pixels of the reduced image, which has the size of the original divided by ``scale``,
    rounded up. EXIF orientation is ignored.

    Raises:
        ValueError: an unknown scale, or a region that does not lie within the image.
    """
    data, numbers = _arguments(data, *size, top, left, height, width, scale)
    rgb = np.empty((numbers[4], numbers[5], 3), np.uint8)
    done = c_bool()
    check(_library.fastccsa_jpeg_decode(address(data), data.size, *numbers, address(rgb), ctypes.byref(done)))
    return rgb if done.value else None


def read_codes(data: NDArray[np.uint8], top: int, left: int, height: int, width: int, scale: int) -> bool:
    """Read the codes that `decode_region` must read, and discard them. False if this decoder cannot read the file.

    Raises:
        ValueError: as for `decode_region`.
    """
    data, region = _arguments(data, top, left, height, width, scale)
    done = c_bool()
    check(_library.fastccsa_jpeg_read_codes(address(data), data.size, *region, ctypes.byref(done)))
    return done.value


def _arguments(data: NDArray[np.uint8], *numbers: int) -> tuple[NDArray[np.uint8], tuple[int, ...]]:
    """Return the bytes without gaps, and the sizes and the scale as integers that fit the C types."""
    if data.dtype != np.uint8:
        raise TypeError(f"data must be uint8, got {data.dtype}")
    integers = tuple(int(value) for value in numbers)
    if min(integers) < 0 or max(integers) > MAX_SIDE:
        raise ValueError("the region does not lie within the image")
    return np.ascontiguousarray(data), integers
