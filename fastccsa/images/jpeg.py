"""Decoding of regions of JPEG files with fastccsa's own decoder, which is implemented in ``csrc/jpeg``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastccsa.images import _jpeg

__all__ = ["decode_region", "read_codes"]


def decode_region(
    data: NDArray[np.uint8], region: Sequence[int], scale: int = 1, *, size: tuple[int, int] | None = None
) -> NDArray[np.uint8] | None:
    """Decode a region of a baseline JPEG, at full size or reduced. EXIF orientation is ignored.

    Args:
        data: content of the file, uint8 [n].
        region: top, left, height, width, in pixels of the reduced image.
        scale: 1, 2, 4 or 8: squares of ``scale`` x ``scale`` pixels are averaged. The reduced image has the size of
            the original divided by ``scale``, rounded up.
        size: height and width of the image in the file as another decoder found them.

    Returns:
        The pixels, uint8 [height, width, 3], or None if this decoder cannot read the file, finds it broken, or finds
        another ``size``.

    Raises:
        ValueError: ``scale`` is invalid, or the region is not within the image.
    """
    top, left, height, width = region
    return _jpeg.decode_region(data, size or (0, 0), top=top, left=left, height=height, width=width, scale=scale)


def read_codes(data: NDArray[np.uint8], region: Sequence[int], scale: int = 1) -> bool:
    """Read the entropy codes that `decode_region` must read, and discard them. The time is a lower bound of its cost.

    Args and errors: as for `decode_region`.

    Returns:
        Whether this decoder can read the file.
    """
    top, left, height, width = region
    return _jpeg.read_codes(data, top=top, left=left, height=height, width=width, scale=scale)
