"""Charts, apart from the page."""

from __future__ import annotations

import re

import numpy as np

from fastccsa.reporting.plots import Series, curves


def test_labels_of_an_axis_keep_their_digits() -> None:
    """Coordinates are written with two decimals, which must not shorten the numbers on the axis."""
    svg = curves("loss", [Series("loss", epochs=[1, 2, 3], values=[0.0601, 0.0652, 0.0688])])
    labels = [float(text) for text in re.findall(r"<text[^>]*>(0\.0\d+)</text>", svg)]
    assert len(labels) > 2
    steps = np.diff(labels)
    np.testing.assert_allclose(steps, steps[0], atol=1e-9)
    assert steps[0] > 0
