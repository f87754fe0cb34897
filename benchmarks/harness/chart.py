"""Results as small charts, which the documentation draws when it is built."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.harness.results import FLOOR, OURS, Results

HORIZONTAL = ("pairs", "rows")  # the parameter along the horizontal axis, whichever a cell has
COLUMNS = 3
# Okabe and Ito's colours, which colour-blind readers can tell apart too; black is fastccsa.
COLOURS = ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#CC79A7", "#009E73")
STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.linewidth": 0.4,
    "axes.titlesize": 7, "svg.hashsalt": "fastccsa", "svg.fonttype": "none",
}  # fmt: skip


def chart(results: Results) -> str | None:
    """Draw the times by size, one panel per combination of the other parameters, both axes logarithmic.

    Returns:
        SVG, or None where no size has two values.
    """
    panels: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    kinds: dict[str, str] = {}
    for sizes, rows in results.cells().values():
        x = next((name for name in HORIZONTAL if name in sizes), None)
        if x is None:
            return None
        title = ", ".join(f"{name} {value}" for name, value in sorted(sizes.items()) if name != x)
        for row in rows:
            if row.seconds:
                low, high = row.quartiles
                point = (sizes[x], row.median, row.median - low, high - row.median)
                panels.setdefault(title, {}).setdefault(row.contestant, []).append(point)
                kinds[row.contestant] = row.kind
    if len({point[0] for lines in panels.values() for points in lines.values() for point in points}) < 2:
        return None
    rows_of_panels = -(-len(panels) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 1.6 + 2.1 * rows_of_panels), layout="constrained")
        grid = figure.subplots(rows_of_panels, COLUMNS, squeeze=False, sharex=True)
        handles = {}
        for axes, (title, lines) in zip(grid.flat, sorted(panels.items()), strict=False):
            axes.set(title=title, xscale="log", yscale="log", xlabel=x, ylabel="seconds")
            axes.xaxis.set_major_formatter("{x:.0f}")
            for name, points in lines.items():
                at, median, below, above = zip(*sorted(points), strict=True)
                handles[name] = axes.errorbar(at, median, yerr=(below, above), elinewidth=0.8, **_style(name, kinds))
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2, frameon=False)
        figure.suptitle(f"{results.command}\n{results.commit_info['id']}, {results.datetime[:10]}", fontsize=8)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def _style(name: str, kinds: dict[str, str]) -> dict[str, Any]:
    """The same for a contestant in every panel."""
    number = [other for other, kind in kinds.items() if kind == kinds[name]].index(name)
    if kinds[name] == OURS:
        return {"color": "black", "linewidth": 2, "marker": "o", "zorder": 3}
    if kinds[name] == FLOOR:
        return {"color": "0.5", "linewidth": 1, "linestyle": (":", "--", "-.")[number % 3], "marker": "_"}
    return {"color": COLOURS[number % 6], "linewidth": 1, "marker": "sv^D<>"[number % 6], "markersize": 4}
