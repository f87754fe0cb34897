"""Locks that let one process at a time work on a run."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastccsa.system.errors import InputError


def lock_file(folder: Path) -> Path:
    """Return the lock file of the run in ``folder``; it is next to the folder, which contains only the run."""
    return folder.with_name(f".{folder.name}.lock")


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Try to lock the run in ``folder`` for the duration of the block, without waiting; yield whether it succeeded.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        InputError: the lock file cannot be written.
    """
    path = lock_file(folder)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w")  # noqa: SIM115  (closed below; this block only catches errors from opening it)
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
    """Return whether a process is working on the run in ``folder`` right now."""
    path = lock_file(folder)
    if not path.exists():
        return False
    with try_lock(folder) as acquired:
        return not acquired
