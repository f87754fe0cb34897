"""The exceptions that are addressed to users: invalid input, failed writes, and interrupted work."""

from __future__ import annotations

import os


class InputError(ValueError):
    """Invalid input: the message says in one line what is wrong, where, and how to fix it.

    The command line prints the message and exits with status 2; in Python it is a ``ValueError``.
    """


class WriteError(InputError, OSError):
    """A file could not be written for a reason that lies in the system, such as a full disk.

    Args:
        message: what could not be written, why, and what to do, in one line.
        number: the system's number of the error, as in ``OSError.errno``.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.errno, self.strerror = number, os.strerror(number)
        self._message = message

    def __str__(self) -> str:
        return self._message

    def __reduce__(self) -> tuple[type[WriteError], tuple[str, int]]:
        return type(self), (self._message, self.errno or 0)


class Interrupted(KeyboardInterrupt):
    """The work was stopped by a signal or a time limit, and everything is saved.

    Like Ctrl-C, it is not caught by ``except Exception``. The command line prints the message and exits with
    ``status``.

    Args:
        message: what stopped the work, what was saved, and how to resume, in one line.
        status: the exit status: 128 plus the number of the signal, or 0.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[Interrupted], tuple[str, int]]:
        return type(self), (str(self), self.status)
