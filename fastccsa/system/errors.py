"""The exceptions that tell a user something: what you gave us is wrong, or the work was stopped."""


class InputError(ValueError):
    """Bad input: the message names what is wrong, where, and the fix, in one line.

    The command line prints the message and exits with status 2; in Python it is a ``ValueError``.
    """


class Interrupted(KeyboardInterrupt):
    """Work was stopped by a signal or by a time limit, after everything was saved.

    As for Ctrl-C, ``except Exception`` does not catch it. The command line prints the message, and exits with
    ``status``.

    Args:
        message: what stopped it, what was kept, and how to go on, in one line.
        status: the exit status that goes with it: 128 and the number of the signal, or 0.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
