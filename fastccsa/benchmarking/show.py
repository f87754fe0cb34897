"""A file of results as its table, whichever benchmark wrote it."""

from __future__ import annotations

import os

from fastccsa.benchmarking.images.table import rates_table
from fastccsa.benchmarking.results import Results
from fastccsa.benchmarking.step_times import StepTimes
from fastccsa.benchmarking.table import origin, table
from fastccsa.system.errors import InputError

__all__ = ["show"]


def show(path: str | os.PathLike[str]) -> str:
    """Make the table of a file that ``fastccsa bench zipped``, ``all-pairs``, ``images`` or ``step`` wrote.

    Raises:
        InputError: the file is none of these.
    """
    try:
        times, about = StepTimes.read(path)
    except InputError:
        results = Results.read(path)
        return rates_table(results) if results.benchmark == "images" else table(results)
    return "\n".join([times.table(), "", *origin(about, about.get("threads"))])
