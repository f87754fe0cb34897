"""Scatter plots as inline SVG, compact enough for thousands of points."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt

from fastccsa.reporting.plots import SERIES_COLOURS

_SIDE = 400  # side length of the drawing; whole numbers are precise enough
_BORDER = 10


def scatter(title: str, points: npt.NDArray[np.float64], groups: npt.NDArray[np.int64]) -> str:
    """Draw points in the colours of their groups as an ``<svg>`` element.

    Each group is one path, and each dot a line of length 0 with round ends: about 9 bytes per point.

    Args:
        title: description of the plot, for screen readers.
        points: [n, 2].
        groups: number of each point's colour, int64 [n].
    """
    low, high = points.min(axis=0), points.max(axis=0)
    span = max(float((high - low).max()), 1e-12)  # one scale for both axes
    places = np.rint(_BORDER + (points - (low + high) / 2 + span / 2) / span * (_SIDE - 2 * _BORDER)).astype(np.int64)
    places[:, 1] = _SIDE - places[:, 1]  # upwards
    paths = []
    for group in _common_first(groups):
        dots = "".join(f"M{x} {y}h0" for x, y in places[groups == group])
        paths.append(f'<path d="{dots}" style="stroke: var(--series-{group % SERIES_COLOURS})"/>')
    label = escape(title)
    return f'<svg class="dots" viewBox="0 0 {_SIDE} {_SIDE}" role="img" aria-label="{label}">{"".join(paths)}</svg>'


def _common_first(groups: npt.NDArray[np.int64]) -> Sequence[int]:
    """Return the groups by size, largest first, so that rare points are on top."""
    found, counts = np.unique(groups, return_counts=True)
    order = np.lexsort((found, -counts))
    return [int(group) for group in found[order]]
