"""Charts as inline SVG with colours from the page's style sheet, so that they follow dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SERIES_COLOURS = 8  # --series-0 to --series-7 of the page's style sheet; further series have dashed lines

# Placeholders for CSS variables, because matplotlib only knows colours.
_INK, _MUTED, _GRID = "#f0f001", "#f0f002", "#f0f003"
_SERIES = [f"#f0f01{number}" for number in range(SERIES_COLOURS)]
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES)
}
_DASHES = (0, (3, 2))

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # keep text as text, in the page's font
    "svg.hashsalt": "fastccsa",  # equal curves give equal bytes
    "font.size": 8,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


@dataclass(frozen=True)
class Series:
    """A line over epochs.

    Attributes:
        name: its name.
        epochs, values: its points.
        colour: number of its colour; None is the colour of text.
        low, high: bounds of a band around the line, if any.
    """

    name: str
    epochs: Sequence[int]
    values: Sequence[float]
    colour: int | None = 0
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    @property
    def is_dashed(self) -> bool:
        """Whether the line is dashed because its colour is already used."""
        return self.colour is not None and self.colour >= SERIES_COLOURS


def curves(title: str, series: Sequence[Series], *, marks: Sequence[int] = (), percent: bool = False) -> str:
    """Draw a small chart of lines over epochs as an ``<svg>`` element.

    Args:
        title: description of the chart, for screen readers.
        series: the lines.
        marks: epochs at which to draw a vertical line.
        percent: the values are shares; the axis shows percent, starting at 0.
    """
    scale = 100 if percent else 1
    with _chart(title) as (axes, svg):
        for mark in sorted(set(marks)):
            axes.axvline(mark, color=_MUTED, linewidth=0.8, linestyle=_DASHES)
        for line in series:
            colour = _INK if line.colour is None else _SERIES[line.colour % SERIES_COLOURS]
            if line.low is not None and line.high is not None:
                outline = [scale * value for value in (*line.low, *reversed(line.high))]
                # A polygon, because fill_between would write a reference instead of a path.
                axes.fill([*line.epochs, *reversed(line.epochs)], outline, color=colour, alpha=0.18, linewidth=0)
            values = [scale * value for value in line.values]
            # A single epoch has no line, so it is drawn as a dot.
            marker = "o" if len(values) == 1 else ""
            style = "--" if line.is_dashed else "-"
            axes.plot(line.epochs, values, color=colour, linestyle=style, marker=marker, markersize=4)
        if percent:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.set_xlabel("epoch")
    return svg[0]


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefits per image over risks.

    Attributes:
        percents: the risks in %.
        model, low, high: net benefit of the model, and its interval.
        always: net benefit of acting on all images.
    """

    percents: Sequence[float]
    model: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    always: Sequence[float]


def decision_curve(title: str, curve: DecisionCurve) -> str:
    """Draw a decision curve as an ``<svg>`` element; ``title`` describes it for screen readers.

    The net benefit of acting on all images is cut off where it is far below zero.
    """
    with _chart(title) as (axes, svg):
        outline = [100 * value for value in (*curve.low, *reversed(curve.high))]
        axes.fill([*curve.percents, *reversed(curve.percents)], outline, color=_SERIES[0], alpha=0.18, linewidth=0)
        axes.axhline(0, color=_MUTED, linewidth=0.8)
        axes.plot(curve.percents, [100 * value for value in curve.always], color=_INK, linestyle=_DASHES, linewidth=1.0)
        axes.plot(curve.percents, [100 * value for value in curve.model], color=_SERIES[0])
        highest = 100 * max(*curve.high, *curve.always, 0.01)
        axes.set_ylim(min(100 * min(curve.low), -0.15 * highest), 1.05 * highest)
        axes.set_xlabel("risk from which one acts, %")
        axes.set_ylabel("net benefit per 100")
    return svg[0]


def histograms(
    title: str, edges: npt.NDArray[np.float64], shares: Mapping[str, npt.NDArray[np.float64]], mark: float
) -> str:
    """Draw outlined histograms over the same bins as an ``<svg>`` element, in the colours of series 0, 1, ...

    Args:
        title: description of the chart, for screen readers.
        edges: edges of the bins, [bins + 1].
        shares: share of each histogram's values by bin, [bins], by its name.
        mark: value at which to draw a vertical line.
    """
    with _chart(title) as (axes, svg):
        axes.axvline(mark, color=_INK, linewidth=0.9, linestyle=_DASHES)
        corners = np.repeat(edges, 2)
        for number, values in enumerate(shares.values()):
            heights = np.concatenate([[0], np.repeat(100 * values, 2), [0]])
            axes.fill(corners, heights, color=_SERIES[number], alpha=0.2, linewidth=0)
            axes.plot(corners, heights, color=_SERIES[number], linewidth=1.2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("distance")
        axes.set_ylabel("% of pairs")
    return svg[0]


def reliability(
    title: str, confidence: npt.NDArray[np.float64], accuracy: npt.NDArray[np.float64], shares: npt.NDArray[np.float64]
) -> str:
    """Draw a reliability diagram as an ``<svg>`` element: accuracy over confidence, and the share of images per bin.

    Args:
        title: description of the chart, for screen readers.
        confidence: mean confidence of each bin, [bins]; NaN in an empty bin.
        accuracy: share of correct answers of each bin, [bins]; NaN in an empty bin.
        shares: share of the images in each bin, [bins].
    """
    bins = len(shares)
    with _chart(title) as (axes, svg):
        axes.plot([0, 100], [0, 100], color=_MUTED, linewidth=0.8, linestyle=_DASHES)
        middles = 100 * (np.arange(bins) + 0.5) / bins
        axes.bar(middles, 100 * shares, width=90 / bins, color=_GRID)
        filled = shares > 0
        axes.plot(100 * confidence[filled], 100 * accuracy[filled], color=_SERIES[0], marker="o", markersize=3)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 102)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("correct, %")
    return svg[0]


@contextmanager
def _chart(title: str) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes to draw on, and a list that contains the chart when the block ends."""
    svg: list[str] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.5, 2.1), layout="constrained")
        axes = figure.add_subplot()
        yield axes, svg
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.margins(x=0.02)
        axes.tick_params(length=0)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
        svg.append(_for_page(text.getvalue(), title))


def _for_page(svg: str, title: str) -> str:
    """Return only the ``<svg>`` element, without external references or local fonts."""
    view_box = re.search(r'viewBox="[^"]*"', svg)
    body = re.search(r"<svg[^>]*>(.*)</svg>", svg, flags=re.DOTALL)
    if view_box is None or body is None:
        raise RuntimeError("matplotlib wrote no <svg viewBox=...> element")
    content = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", body[1], flags=re.DOTALL)
    # The ids of groups are the same in every chart, and unused.
    content = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", content)
    content = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", content)
    content = re.sub(r"font-family: [^;\"]*;?", "", content)
    # A hundredth of a point is finer than any screen. Only inside tags: the text of labels keeps its digits.
    content = re.sub(r"(\d\.\d\d)\d+(?=[^<>]*>)", r"\1", content)
    content = re.sub(r"\s*\n\s*", "\n", content)
    content = content.replace("xlink:href", "href")  # SVG 2: no namespace to declare
    for colour, variable in _VARIABLES.items():
        content = content.replace(colour, f"var({variable})")
    return f'<svg class="chart" {view_box[0]} role="img" aria-label="{escape(title)}">{content}</svg>'
