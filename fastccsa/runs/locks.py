"""A run belongs to one process at a time, and to none once that process is dead."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastccsa.system.errors import InputError


def lock_file(folder: Path) -> Path:
    """Where the lock of the run in ``folder`` is: beside it, so that the folder holds the run alone."""
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Yield whether the run in ``folder`` is ours until the block ends; waits for nobody.

    The system itself gives the lock back when the process dies, however it does.

    Raises:
        InputError: the lock's folder cannot be written.
    """
    path = lock_file(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115  (closed below; what is caught here is its opening alone)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder you can write to") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def is_locked(folder: Path) -> bool:
    """Whether a process works on the run in ``folder`` right now."""
    path = lock_file(folder)
    if not path.exists():
        return False
    with try_lock(folder) as mine:
        return not mine
