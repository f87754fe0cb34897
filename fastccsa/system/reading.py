"""Reading files that anything may have been done to: only regular ones, up to a size, and JSON of any content."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastccsa.system.errors import InputError
from fastccsa.system.schema import Mismatch

LARGEST_TEXT = 256 << 20  # bytes of a text file; the index of a store has about 200 bytes per image
LARGEST_FILE = 1 << 40


def read_bytes(path: str | os.PathLike[str], limit: int = LARGEST_TEXT) -> bytes:
    """Read a regular file.

    Raises:
        OSError: it cannot be read, is not a regular file (a pipe would wait forever, a device may have no end), or has
            more than ``limit`` bytes.
    """
    check_regular(path, limit)
    # Not blocking, in case a pipe has taken the place of the file meanwhile.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        content = file.read(limit + 1)
    if content is None or len(content) > limit:
        raise OSError(errno.EFBIG, "it changed while it was read", os.fspath(path))
    return content


def check_regular(path: str | os.PathLike[str], limit: int = LARGEST_FILE) -> int:
    """Return the size of a regular file in bytes.

    Raises:
        OSError: there is no such file, it is not a regular file, or it has more than ``limit`` bytes.
    """
    try:
        about = os.stat(path)
    except ValueError as error:  # a NUL in the path
        raise FileNotFoundError(errno.ENOENT, str(error), os.fspath(path)) from error
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", os.fspath(path))
    if not stat.S_ISREG(about.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    if about.st_size > limit:
        raise OSError(errno.EFBIG, f"it has {about.st_size} bytes, more than {limit}", os.fspath(path))
    return about.st_size


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a regular file as UTF-8.

    Raises:
        OSError: as for `read_bytes`.
        InputError: it is not UTF-8; the message does not name the file.
    """
    return decode(read_bytes(path))


def decode(content: bytes) -> str:
    """Return ``content`` as text.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise Mismatch(f"it is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}") from error


def load_json(content: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        InputError: it is not JSON in UTF-8, or it is nested too deeply.
    """
    text = decode(content) if isinstance(content, bytes) else content
    try:
        return json.loads(text)
    except RecursionError as error:
        raise Mismatch("it is nested too deeply") from error
    except ValueError as error:
        raise Mismatch(f"it is not valid JSON: {error}") from error


@contextmanager
def reported(file: str | os.PathLike[str], problem: str, advice: str) -> Iterator[None]:
    """Turn what the functions here and `fastccsa.system.schema.build` raise into ``FILE PROBLEM (REASON); ADVICE``.

    Raises:
        InputError: the file is broken.
        FileNotFoundError: it does not exist.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, InputError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"{Path(file)} {problem} ({reason}); {advice}") from error
