"""Reading files that others wrote: only regular files, and never more bytes than an image may have."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

from fastccsa.formats.errors import BrokenImageError, UnreadableFileError

# Most bytes that are read for one image. An uncompressed 16-bit RGB image of `MAX_PIXELS` has fewer.
MAX_BYTES = 2**29

Path = str | os.PathLike[str]


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, for reading.

    A FIFO would block until somebody writes to it, and a device may act on being opened or never end.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    _require_regular(os.stat(path))
    # If a FIFO takes the file's place in between, O_NONBLOCK prevents it from blocking.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _require_regular(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return open(descriptor, "rb")


def file_problem(path: Path) -> str | None:
    """Return why a file cannot hold an image, as far as can be said without opening it; None if it can."""
    try:
        status = os.stat(path)
        _require_regular(status)
    except OSError as error:
        return error.strerror or str(error)
    return _size_problem(status.st_size)


def read_file(path: Path) -> bytes:
    """Read the content of an image file.

    Raises:
        UnreadableFileError: the file is missing, access is denied, or it is not a regular file.
        BrokenImageError: it is empty, or larger than `MAX_BYTES`.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            problem = _size_problem(size)
            if problem is not None:
                raise BrokenImageError(problem)
            return file.read(size)
    except OSError as error:
        raise UnreadableFileError(error.strerror or str(error)) from error


def _require_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file, but a FIFO, socket or device")


def _size_problem(size: int) -> str | None:
    if not size:
        return "the file is empty"
    if size > MAX_BYTES:
        return f"the file has {size / 1e6:,.0f} MB, and at most {MAX_BYTES / 1e6:,.0f} MB are read for one image"
    return None
