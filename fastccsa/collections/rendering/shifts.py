"""How far the style of a domain lies from the common style."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from fastccsa.collections.rendering.styles import STYLES, Range, Style

#: Every domain has this style at a shift of 0.
COMMON = STYLES["HAM"][0]

# The values that make sense, by field of `Style`. Extrapolation stops at these bounds.
_BOUNDS: dict[str, Range] = {
    "frame": (0.5, 2.0),
    "lesion": (0.08, 0.5),  # smaller lesions show no structure, larger ones leave the frame
    "melanin": (0.0, 0.6),
    "blood": (0.0, 0.8),
    "gain": (0.4, 2.0),
    "gain_spread": (0.0, 0.3),
    "exposure": (0.6, 1.8),
    "contrast": (0.3, 1.5),
    "saturation": (0.0, 2.0),
    "vignette": (0.0, 1.0),
    "blur": (0.0, 15.0),
    "noise": (0.0, 0.1),
    "quality": (1.0, 100.0),
    "glare": (0.0, 1.0),
    "hair": (0.0, 60.0),
}
_PROBABILITY = (0.0, 1.0)  # the bounds of all other fields
_RANGES = {"lesion", "exposure", "contrast", "saturation", "vignette", "blur", "quality"}


def shifted(style: Style, shift: float) -> Style:
    """Return the style ``shift`` times as far from the common style.

    Every value is interpolated, or extrapolated up to the bounds of what makes sense. The size of the frame is never
    extrapolated, because it would change the cost of a picture more than its look.

    Args:
        style: Style of a domain.
        shift: 0 returns the common style, 1 returns ``style``, 2 doubles every difference.
    """
    if shift == 0:
        return COMMON
    return replace(style, **{field.name: _move(field.name, style, shift) for field in fields(Style)})


def _move(name: str, style: Style, shift: float) -> Any:
    """Return the value of one field; exactly that of ``style`` if the shift is 1 or the common style has the same."""
    value, origin = getattr(style, name), getattr(COMMON, name)
    low, high = _BOUNDS.get(name, _PROBABILITY)
    beyond = (min(shift, 1.0) if name == "frame" else shift) - 1

    def move(end: float, start: float) -> float:
        return min(max(end + beyond * (end - start), low), high)

    if not isinstance(value, tuple):
        return move(value, origin)
    moved = [move(end, start) for end, start in zip(value, origin, strict=True)]
    # The ends of a range move at different speeds and can cross.
    return tuple(sorted(moved) if name in _RANGES else moved)
