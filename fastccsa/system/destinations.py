"""Where a path for output leads: to a file that can be replaced, or into something that must be written into."""

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

from fastccsa.system.errors import InputError

_LINKS = 40  # as many as the system follows


def destination_of(path: Path) -> Path | int:
    """Follow the links of ``path``.

    Returns:
        The path of what is there, or of what will be; or the number of an open descriptor of this process, for
        ``/dev/stdout``, ``/dev/fd/3`` and the like. The descriptor of a file has a position, which a second opening
        of the file would not share.

    Raises:
        InputError: the links lead in a circle.
    """
    place = os.fspath(path)
    for _ in range(_LINKS):
        folder, name = os.path.realpath(os.path.dirname(place)), os.path.basename(place)
        if name.isdigit() and _holds_descriptors(folder):
            return int(name)
        place = os.path.join(folder, name)
        if not os.path.islink(place):
            return Path(place)
        place = os.path.join(folder, os.readlink(place))
    raise InputError(f"cannot write {path}: its links lead in a circle; remove them")


def is_special(path: Path) -> bool:
    """Return whether something is there that is neither a regular file, a folder nor a link: a pipe, a device."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return False  # creating the file will report it
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))


def open_special(target: Path | int) -> int:
    """Open a pipe, a character device or a descriptor for writing, without creating or emptying anything.

    Opening a named pipe waits for a reader.

    Raises:
        InputError: it is a disk.
        OSError: it cannot be opened.
    """
    if isinstance(target, int):
        for stream in (sys.stdout, sys.stderr):  # what was printed before comes first
            stream.flush()
        return os.dup(target)
    if stat.S_ISBLK(target.stat().st_mode):
        raise InputError(f"cannot write {target}: it is a disk; name a file on it")
    return os.open(target, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)


def _holds_descriptors(folder: str) -> bool:
    return folder == "/dev/fd" or re.fullmatch(rf"/proc/{os.getpid()}(/task/\d+)?/fd", folder) is not None
