"""The results of a benchmark as small charts: time by the number of pairs, a line a contestant."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fastccsa.benchmarking.results import FLOOR, OURS, CellResult, Results
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

__all__ = ["ENDINGS", "plot"]

ENDINGS = (".svg", ".png")
# Okabe and Ito's colours, told apart by colour-blind readers too; black is fastccsa.
COLOURS = ("#D55E00", "#E69F00", "#0072B2", "#56B4E9", "#CC79A7", "#009E73")
MARKERS = "sv^D<>"
STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "svg.hashsalt": "fastccsa",  # the same results give the same bytes
    "svg.fonttype": "none",
}


def plot(results: Results, path: str | os.PathLike[str], x: str, columns: str, rows: Sequence[str]) -> None:
    """Draw the times, one chart for each combination of the other parameters, both axes logarithmic.

    Args:
        results: what to draw; contestants without times are left out.
        path: a .svg or .png file.
        x: the cells' parameter along the horizontal axis.
        columns: the parameter that differs from column to column.
        rows: the parameters that differ from row to row.

    Raises:
        InputError: another ending, or nothing to draw.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise InputError(f"{path}: a plot is written as {' or '.join(ENDINGS)}; choose one of these endings")
    cells = [cell for cell in results.cells if any(m.seconds for m in cell.measurements)]
    if not cells:
        raise InputError("no cell was measured, so there is nothing to plot")
    column_keys = _distinct(cells, (columns,))
    row_keys = _distinct(cells, rows)
    names = {m.contestant: m.kind for cell in cells for m in cell.measurements if m.seconds}
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 2.6 * len(column_keys), 1.6 + 2.1 * len(row_keys)), layout="constrained")
        grid = figure.subplots(len(row_keys), len(column_keys), squeeze=False, sharex=True)
        for i, row in enumerate(row_keys):
            for j, column in enumerate(column_keys):
                here = [cell for cell in cells if _key(cell, rows) == row and _key(cell, (columns,)) == column]
                _draw(grid[i][j], here, names, x)
                grid[i][j].set_title(", ".join([*map(_text, rows, row), _text(columns, *column)]), fontsize=7)
        handles: dict[str, Artist] = {}
        for axes in grid.flat:
            handles.update(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
            axes.set_xticks(sorted({cell.cell[x] for cell in cells}), minor=False)
            axes.xaxis.set_major_formatter("{x:.0f}")
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=2, frameon=False)
        figure.suptitle(_title(results), fontsize=8)
        with write_atomically(path) as temporary:
            figure.savefig(
                temporary, format=path.suffix[1:], dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None
            )


def _title(results: Results) -> str:
    machine = results.machine
    device = machine["gpu"]["name"] if machine["gpu"] else f"{machine['cpu']}, {results.settings['threads']} thread(s)"
    commit = f"commit {results.commit[:12]}" if results.commit else "commit not known"
    return f"{results.benchmark}, {device}\ntorch {results.versions['torch']}, {commit}, {results.date[:10]}"


def _key(cell: CellResult, names: Sequence[str]) -> tuple[Hashable, ...]:
    return tuple(cell.cell[name] for name in names)


def _distinct(cells: Sequence[CellResult], names: Sequence[str]) -> list[tuple[Hashable, ...]]:
    return list(dict.fromkeys(_key(cell, names) for cell in cells))


def _text(name: str, value: Hashable) -> str:
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return value if isinstance(value, str) else f"{name} {value}"


def _draw(axes: Axes, cells: Sequence[CellResult], names: dict[str, str], x: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel("seconds")
    for name in names:
        rows = [(cell.cell[x], row) for cell in cells for row in cell.measurements if row.contestant == name]
        points = sorted((at, *row.quartiles) for at, row in rows if row.seconds)
        if not points:
            continue
        at, low, median, high = zip(*points, strict=True)
        below = [m - q for m, q in zip(median, low, strict=True)]
        above = [q - m for m, q in zip(median, high, strict=True)]
        axes.errorbar(at, median, yerr=(below, above), label=name, elinewidth=0.8, **_style(name, names))


def _style(name: str, names: dict[str, str]) -> dict[str, Any]:
    """The same for a contestant in every chart."""
    alike = [other for other, kind in names.items() if kind == names[name]]
    number = alike.index(name)
    if names[name] == OURS:
        return {"color": "black", "linewidth": 2, "marker": "o", "zorder": 3}
    if names[name] == FLOOR:
        return {"color": "0.5", "linewidth": 1, "linestyle": (":", "--", "-.")[number % 3], "marker": "_"}
    return {"color": COLOURS[number % 6], "linewidth": 1, "marker": MARKERS[number % 6], "markersize": 4}
