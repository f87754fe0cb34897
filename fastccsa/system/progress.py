"""Status lines that do not break a progress bar."""

from __future__ import annotations

import errno
from collections.abc import Callable

from fastccsa.system.text import printable

Say = Callable[[str], None]


def status_lines(progress: bool) -> Say:
    """Return a function that prints a line on stdout, above any progress bar; if not ``progress``, it does nothing.

    Control characters are made visible, except for line ends. Nothing is printed after the terminal was closed.
    """
    if not progress:
        return lambda line: None
    from tqdm import tqdm

    def say(line: str) -> None:
        try:
            tqdm.write(printable(line, lines=True))
        except OSError as error:
            if error.errno != errno.EIO:
                raise

    return say
