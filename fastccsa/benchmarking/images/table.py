"""The image benchmark's results as images a second."""

from __future__ import annotations

import statistics

from fastccsa.benchmarking.results import CellResult, Measurement, Results
from fastccsa.benchmarking.table import NOT_MEASURED, origin

__all__ = ["rates_table"]

LITERAL, TORCHVISION = "DALI, literal", ("torchvision, PIL", "torchvision, tensors")
_HEAD = ("", "images/s", "25-75%", "CPU ms/image", "x DALI, literal", "x torchvision")
_LEGEND = (
    "images/s: median of the rounds, and its quartiles. CPU: of all threads and processes, median. x: images/s in "
    "times of DALI's literal pipeline, and of the faster torchvision. Floors: 'codes read' bounds what decodes JPEGs "
    "as fastccsa does, 'bytes copied' what makes images from a store."
)


def rates_table(results: Results) -> str:
    """Images a second, CPU time, and both rivals' multiples; plain text."""
    lines = []
    for cell in results.cells:
        rows = [_HEAD, *(_row(cell, row) for row in cell.measurements)]
        widths = [max(len(row[column]) for row in rows if len(row) > column) for column in range(len(_HEAD))]
        lines.append(cell.cell["title"])
        for row in rows:
            texts = (
                f"{text:<{width}}" if not column else f"{text:>{width}}"
                for column, (text, width) in enumerate(zip(row, widths, strict=False))
            )
            lines.append("  " + "  ".join(texts).rstrip())
        lines += [f"  {row.contestant}: {row.not_measured}" for row in cell.measurements if row.not_measured]
        lines.append("")
    return "\n".join([*lines, _LEGEND, "", *origin(vars(results), results.settings["threads"])])


def _row(cell: CellResult, row: Measurement) -> tuple[str, ...]:
    if not row.seconds:
        return row.contestant, NOT_MEASURED
    low, median, high = row.quartiles
    by_name = {other.contestant: other.median for other in cell.measurements if other.seconds}
    torchvision = min((by_name[name] for name in TORCHVISION if name in by_name), default=None)
    times = ("" if rival is None else f"{rival / median:.1f}" for rival in (by_name.get(LITERAL), torchvision))
    cpu = f"{1e3 * statistics.median(row.cpu_seconds):.2f}"
    return row.contestant, f"{1 / median:.1f}", f"{1 / high:.1f} - {1 / low:.1f}", cpu, *times
