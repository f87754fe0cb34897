"""Locks on files that several processes share, and opening such files safely."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

from fastccsa.system.errors import InputError

# Errors of file systems that have no locks.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


def open_shared(path: str | os.PathLike[str]) -> int:
    """Open a file that other processes and users write too, for reading and writing; create it if it is missing.

    Unlike ``open(path, "w")`` this neither follows a link nor empties the file: in a folder that others can write to,
    somebody may have put a link to another file there. If the file belongs to somebody else and cannot be written, it
    is opened for reading, which is enough to lock it.

    Returns:
        The descriptor, which the caller must close.

    Raises:
        InputError: there is a link, or something else that is not a regular file.
        OSError: the file cannot be opened.
    """
    # O_NONBLOCK: opening a FIFO must not wait.
    common = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | common, 0o666)
    except PermissionError:
        try:
            file = os.open(path, os.O_RDONLY | common)
        except FileNotFoundError:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InputError(f"{path} is a link, which is not followed here: remove it") from error
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise InputError(f"{path} is not a regular file: remove it") from error
        raise
    status = os.fstat(file)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
        return file
    os.close(file)
    if stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a hard link to another file, which would be changed too: remove it")
    raise InputError(f"{path} is not a regular file: remove it")


def try_flock(file: int, shared: bool = False) -> bool | None:
    """Lock an open file without waiting; the lock ends when the file is closed, or with the process.

    Over NFS the lock also holds for processes on other hosts.

    Args:
        file: the descriptor.
        shared: allow other shared locks.

    Returns:
        Whether the file is locked now; None if its file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # EACCES: of NFS, for a lock that is held elsewhere
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS or error.errno == errno.EBADF:  # EBADF: NFS locks only what is open for writing
            return None
        raise
    return True


def is_same_file(file: int, path: Path) -> bool:
    """Return whether ``path`` still names the open file; it may have been removed, or made again, since."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False
