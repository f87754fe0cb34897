"""Curves as inline SVG that takes its colours from the page's style sheet, so that it follows dark mode."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

SERIES_COLOURS = 8  # --series-0 to --series-7 of the page's style sheet; more series go on with dashed lines

# Stand-ins for CSS variables while matplotlib draws: it knows colours, not variables.
_INK, _MUTED, _GRID = "#f0f001", "#f0f002", "#f0f003"
_SERIES = [f"#f0f01{number}" for number in range(SERIES_COLOURS)]
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--grid"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES)
}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "fastccsa",  # the same curves give the same bytes
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
    """A line: its values by epoch, and the number of its colour (None is the text's colour)."""

    name: str
    epochs: Sequence[int]
    values: Sequence[float]
    colour: int | None = 0

    @property
    def is_dashed(self) -> bool:
        """Whether its colour is used a second time."""
        return self.colour is not None and self.colour >= SERIES_COLOURS


def curves(title: str, series: Sequence[Series], *, mark: int | None = None, percent: bool = False) -> str:
    """One small chart of lines over epochs as an ``<svg>`` element.

    Args:
        title: what it shows, for those who hear the page instead of seeing it.
        series: the lines.
        mark: epoch at which to draw a vertical line.
        percent: values are shares; the axis shows percent, from 0.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.5, 2.1), layout="constrained")
        axes = figure.add_subplot()
        if mark is not None:
            axes.axvline(mark, color=_MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
        for line in series:
            values = [100 * value for value in line.values] if percent else line.values
            # A single epoch has no line to draw: a dot shows it.
            marker = "o" if len(values) == 1 else ""
            colour = _INK if line.colour is None else _SERIES[line.colour % SERIES_COLOURS]
            style = "--" if line.is_dashed else "-"
            axes.plot(line.epochs, values, color=colour, linestyle=style, marker=marker, markersize=4)
        if percent:
            axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
        axes.margins(x=0.02)
        axes.tick_params(length=0)
        axes.set_xlabel("epoch")
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
    return _for_page(text.getvalue(), title)


def _for_page(svg: str, title: str) -> str:
    """The ``<svg>`` element alone, with nothing in it that reaches out of it or depends on fonts here."""
    view_box = re.search(r'viewBox="[^"]*"', svg)
    body = re.search(r"<svg[^>]*>(.*)</svg>", svg, flags=re.DOTALL)
    if view_box is None or body is None:
        raise RuntimeError("matplotlib wrote no <svg viewBox=...> element")
    content = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", body[1], flags=re.DOTALL)
    # Ids of groups are the same in every chart, and nothing refers to them.
    content = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", content)
    content = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", content)
    content = re.sub(r"font-family: [^;\"]*;?", "", content)
    for colour, variable in _VARIABLES.items():
        content = content.replace(colour, f"var({variable})")
    return f'<svg class="chart" {view_box[0]} role="img" aria-label="{escape(title)}">{content}</svg>'
