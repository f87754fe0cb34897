"""The exception that means: what you gave us is wrong, and here is what to do about it."""


class InputError(ValueError):
    """Bad input: the message names what is wrong, where, and the fix, in one line.

    The command line prints the message and exits with status 2; in Python it is a ``ValueError``.
    """
