"""Recognising a full or failing disk behind the errors of the libraries that write files."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from fastccsa.system.errors import WriteError

# Errors of the place that is written to, not of the program: no space, quota, file size, read-only, hardware.
NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})


def disk_error(error: BaseException) -> int | None:
    """Return the number of the disk's error behind ``error``; None if something else is the cause.

    torch wraps it in a RuntimeError that has the system's error as its context; safetensors only quotes it.
    """
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if isinstance(found, OSError) and found.errno in NUMBERS:
            return found.errno
        quoted = re.search(r"(?:os error|code:) (\d+)", str(found))
        if quoted and int(quoted[1]) in NUMBERS and not isinstance(found, OSError):
            return int(quoted[1])
        found = found.__cause__ or found.__context__
    return None


def write_error(path: Path, error: BaseException) -> WriteError | None:
    """Return the error to raise if writing ``path`` failed with ``error`` because of the disk; else None."""
    if isinstance(error, WriteError) or (number := disk_error(error)) is None:
        return None
    failure = WriteError(
        f"cannot write {path}: {os.strerror(number)}{_room(path)}; make room, or choose another folder", number
    )
    failure.filename = str(path)
    return failure


def _room(path: Path) -> str:
    """Return the free space of the disk in words."""
    try:
        return f" ({shutil.disk_usage(path.parent).free / 1e9:.2f} GB free)"
    except OSError:
        return ""
