"""Results as small charts, which the documentation draws when it is built."""

from __future__ import annotations

import io
import textwrap
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from benchmarks.harness.results import FLOOR, OURS, Results

COLUMNS = 3
# Okabe and Ito's colours, which colour-blind readers can distinguish too; black is fastccsa.
COLOURS = ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#CC79A7", "#009E73")
STYLE: dict[Any, Any] = {
    "font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.linewidth": 0.4,
    "axes.titlesize": 7, "svg.hashsalt": "fastccsa", "svg.fonttype": "none",
}  # fmt: skip


def chart(results: Results) -> str | None:
    """Draw the times by N, one panel per combination of the other parameters, as SVG; None if N does not vary."""
    every = [(sizes, rows) for sizes, rows in results.cells().values() if any(row.seconds for row in rows)]
    x = next((name for name in ("pairs", "rows") if all(name in sizes for sizes, _ in every)), "")
    varying = {name for sizes, _ in every for name, value in sizes.items() if value != every[0][0][name]}
    if x not in varying:
        return None
    panels: dict[str, dict[str, list[tuple[float, ...]]]] = {}
    kinds = {row.contestant: row.kind for _, rows in every for row in rows if row.seconds}
    for sizes, rows in every:
        title = ", ".join(f"{name} {sizes[name]}" for name in sorted(varying - {x}))
        for row in (row for row in rows if row.seconds):
            low, high = row.quartiles
            point = (sizes[x], row.median, row.median - low, high - row.median)
            panels.setdefault(title, {}).setdefault(row.contestant, []).append(point)
    count = -(-len(panels) // COLUMNS)
    with matplotlib.rc_context(STYLE):
        figure, handles = Figure(figsize=(9.4, 1.6 + 2.1 * count), layout="constrained"), {}
        grid = figure.subplots(count, COLUMNS, squeeze=False)
        for axes, (title, lines) in zip(grid.flat, sorted(panels.items()), strict=False):
            axes.set(title=textwrap.fill(title, 36), xscale="log", yscale="log", xlabel=x, ylabel="seconds")
            for name, points in lines.items():
                at, median, below, above = zip(*sorted(points), strict=True)
                handles[name] = axes.errorbar(at, median, yerr=(below, above), elinewidth=0.8, **_style(name, kinds))
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2, frameon=False)
        figure.suptitle(f"{results.machine_info['cpu']}, commit {results.commit_info['id']}, {results.datetime[:10]}")
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


def _style(name: str, kinds: dict[str, str]) -> dict[str, Any]:
    """Return the style of a contestant, which is the same in every panel."""
    number = [other for other, kind in kinds.items() if kind == kinds[name]].index(name)
    if kinds[name] == OURS:
        return {"color": "black", "linewidth": 2, "marker": "o", "zorder": 3}
    if kinds[name] == FLOOR:
        return {"color": "0.5", "linewidth": 1, "linestyle": (":", "--", "-.")[number % 3], "marker": "_"}
    return {"color": COLOURS[number % 6], "linewidth": 1, "marker": "sv^D<>"[number % 6], "markersize": 4}
