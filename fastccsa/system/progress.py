"""Status lines that do not break a progress bar."""

from __future__ import annotations

from collections.abc import Callable

Say = Callable[[str], None]


def status_lines(progress: bool) -> Say:
    """Return a function that prints a line on stdout, above any progress bar; if not ``progress``, it does nothing."""
    if not progress:
        return lambda line: None
    from tqdm import tqdm

    return tqdm.write
