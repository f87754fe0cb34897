"""Status lines that do not break a progress bar."""

from __future__ import annotations

from collections.abc import Callable

from tqdm import tqdm

Say = Callable[[str], None]


def status_lines(progress: bool) -> Say:
    """Return a function that prints a line on stdout, above any progress bar; without ``progress`` it does nothing."""
    return tqdm.write if progress else lambda line: None
