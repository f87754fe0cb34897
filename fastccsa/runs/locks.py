"""Locks that let one process at a time write a run, on this host or on another one that shares the folder."""

from __future__ import annotations

import getpass
import logging
import os
import platform
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastccsa.runs.folder import SCORES_FILE
from fastccsa.system.errors import InputError
from fastccsa.system.locks import open_shared, try_flock
from fastccsa.system.machine import now
from fastccsa.system.text import printable

# `is_locked` of another process holds a lock for a moment: a lock counts as taken when it stays so for this long.
_PATIENCE_SECONDS = 1.0
_LONGEST_NOTE = 500  # bytes

logger = logging.getLogger("fastccsa.runs")

# The lock files that this process holds, and the thread that does: `prune` trains the run that it has locked already.
_held: dict[str, int] = {}


def lock_file(folder: Path) -> Path:
    """Return the lock file of the run in ``folder``.

    It is next to the folder, which contains only the run, unless only the folder itself can be written to.
    """
    real = Path(os.path.realpath(folder))
    beside, inside = real.parent / f".{real.name}.lock", real / ".lock"
    if not beside.exists() and not os.access(real.parent, os.W_OK) and os.access(real, os.W_OK):
        return inside
    return beside


@contextmanager
def try_lock(folder: Path) -> Iterator[bool]:
    """Try to lock the run in ``folder`` for the duration of the block, without waiting; yield whether it succeeded.

    The operating system releases the lock when the process ends, however it ends. Where the file system has no locks, a
    warning says so, and the run counts as locked.

    Raises:
        InputError: the lock file cannot be written.
    """
    path = lock_file(folder)
    file = _open(path)
    try:
        locked = try_flock(file)
        if locked is None:
            logger.warning("%s is on a file system without locks: make sure that no other process writes there", folder)
        elif not locked:
            yield False
            return
        _note(file)
        _held[str(path)] = threading.get_ident()
        try:
            yield True
        finally:
            del _held[str(path)]
    finally:
        os.close(file)


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Lock the run in ``folder`` for the duration of the block; see `try_lock`.

    A thread that holds the lock already keeps it. A finished run is not locked, because nothing writes to it; its
    folder may be read-only.

    Raises:
        InputError: another process works on the run; the message says which one.
    """
    if (folder / SCORES_FILE).exists() or _held.get(str(lock_file(folder))) == threading.get_ident():
        yield
        return
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with try_lock(folder) as acquired:
            if acquired:
                yield
                return
        if time.monotonic() >= deadline:
            raise InputError(
                f"{folder} is in use by {_holder(lock_file(folder))}: wait until it has ended, or choose another folder"
            )
        time.sleep(_PATIENCE_SECONDS / 10)


def is_locked(folder: Path) -> bool:
    """Return whether a process is working on the run in ``folder`` right now."""
    path = lock_file(folder)
    if not path.exists():
        return False
    file = _open(path)
    try:
        return try_flock(file, shared=True) is False
    finally:
        os.close(file)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open_shared(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder you can write to") from error


def _note(file: int) -> None:
    """Write into the lock file who holds it, for the message of `lock_run`."""
    text = f"process {os.getpid()} on {platform.node()} ({_user()}, since {now()}: {shlex.join(sys.argv)})"
    note = printable(text).encode(errors="replace")[:_LONGEST_NOTE]
    try:
        os.pwrite(file, note, 0)
        os.ftruncate(file, len(note))
    except OSError:  # the file of another user, or a full disk: the lock holds without a note
        pass


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return f"user {os.getuid()}"


def _holder(path: Path) -> str:
    """Return who holds a lock, as its note says."""
    try:
        file = open_shared(path)
    except (InputError, OSError):
        return "another process"
    try:
        note = os.pread(file, _LONGEST_NOTE, 0).decode(errors="replace")
    finally:
        os.close(file)
    return printable(note) or "another process"
