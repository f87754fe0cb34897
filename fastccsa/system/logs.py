"""Warnings of the package on the terminal, for programs that have not configured logging."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from fastccsa.system.text import printable


class _PrintableFormatter(logging.Formatter):
    """Formats messages on one line each, with control characters made visible."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


class _Terminal(logging.Handler):
    """Writes to stderr as it is when the message comes, as logging's handler of last resort does."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


@contextmanager
def log_to_terminal() -> Iterator[None]:
    """Print warnings of the package on stderr within the block, unless logging is configured already."""
    logger = logging.getLogger("fastccsa")
    if logger.hasHandlers():
        yield
        return
    handler = _Terminal(logging.WARNING)
    handler.setFormatter(_PrintableFormatter())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
