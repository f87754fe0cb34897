"""The orientation of an image according to its EXIF data."""

from __future__ import annotations

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


def orientation_of(image: Image.Image) -> int | None:
    """Return the EXIF orientation, 1 (upright) if there is none, and None if the EXIF data is damaged.

    Other metadata is ignored, as in DALI.
    """
    data = image.info.get("exif", b"")
    if not data:
        return 1
    try:
        exif = Image.Exif()
        exif.load(data)
        found = int(exif.get(_TAG, 1))
    # The parser raises many types of errors: SyntaxError, struct.error, TypeError, RecursionError, ...
    except Exception:
        return None
    return found if found == 1 or found in UPRIGHT else None
