"""The exceptions that are addressed to users: invalid input, and interrupted work."""


class InputError(ValueError):
    """Invalid input: the message says in one line what is wrong, where, and how to fix it.

    The command line prints the message and exits with status 2; in Python it is a ``ValueError``.
    """


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
