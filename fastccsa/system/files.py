"""Writing files atomically: a reader sees the old content or the new content, never a part of it."""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fastccsa.system.destinations import destination_of, is_special, open_special
from fastccsa.system.errors import InputError, WriteError
from fastccsa.system.full_disk import write_error
from fastccsa.system.locks import is_same_file, try_flock

UNFINISHED = ".part"  # ending of temporary files


@contextmanager
def write_atomically(
    path: str | os.PathLike[str], keep: str | os.PathLike[str] | None = None, follow_links: bool = True
) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on success it is synced and renamed to ``path``.

    If the block raises, ``path`` is left unchanged and the temporary file is removed. A new file has the permissions
    that the umask gives, and a replaced one keeps its own. A link is resolved: the file it leads to is replaced, and
    the link stays. What is not a regular file (a pipe, a terminal, ``/dev/null``, ``/dev/stdout``) is never replaced:
    the content is written into it when the block is done.

    The temporary file is locked while it is written. If its process is killed, the next call for the same ``path``
    removes it.

    Args:
        path: the file to write.
        keep: new path of the previous file, in the same folder; None discards the file. Between the two renames, only
            the kept file exists. Links are not resolved.
        follow_links: resolve links. Set it to False in a folder that other users can write to: a link is replaced.

    Raises:
        InputError: ``path`` is a folder, or its folder cannot be written.
        WriteError: it could not be written for a reason such as a full disk.
    """
    path = Path(path)
    target = destination_of(path) if follow_links and keep is None else path
    if isinstance(target, int) or is_special(target):
        if keep is not None or not follow_links:
            raise InputError(f"cannot write {path}: it is not a regular file; remove it")
        with _written_into(path, target) as temporary:
            yield temporary
        return
    if target.is_dir() and not target.is_symlink():
        raise InputError(f"cannot write {path}: it is a folder; name a file in it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _claim(target)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; choose a folder you can write to") from error
    try:
        mode = _mode_of(target)
        if mode is not None:  # the content of a private file is private from the start
            os.fchmod(handle, mode | stat.S_IRUSR | stat.S_IWUSR)
        yield temporary
        _sync(temporary)
        if mode is not None:
            temporary.chmod(mode)
        if keep is not None and target.exists():
            os.replace(target, keep)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except Exception as error:
        if (failure := write_error(path, error)) is not None:
            raise failure from error
        raise
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def writable_place(folder: Path) -> Path | None:
    """Return a folder or, if it is missing, the nearest one above it; None if this user may not write there."""
    # Path.exists may not be allowed to find out.
    place = next(place for place in (folder, *folder.parents) if os.path.exists(place))
    return place if place.is_dir() and os.access(place, os.W_OK | os.X_OK) else None


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Remove the temporary files of killed `write_atomically` calls in ``folder``; those of living processes stay."""
    for leftover in Path(folder).glob(f".*{UNFINISHED}"):
        _remove_if_abandoned(leftover)


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make a folder for temporary files in ``parent``, and remove it after the block.

    It is locked meanwhile; folders of the same prefix that killed processes left behind are removed first.

    Args:
        parent: an existing folder.
        prefix: beginning of the name, which no other file in ``parent`` may have.
    """
    for leftover in parent.glob(f"{prefix}*"):
        _remove_if_abandoned(leftover, stat.S_IFDIR)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try_flock(handle)
            yield Path(name)
        finally:
            os.close(handle)


def _claim(target: Path) -> tuple[int, Path]:
    """Create and lock a temporary file next to ``target``.

    Its name follows from that of ``target``, so that a later call finds what a killed one has left. A name that is in
    use by a living process is passed over.
    """
    for number in itertools.count():
        middle = f".{number}" if number else ""
        temporary = target.with_name(f".{target.name}{middle}{UNFINISHED}")
        if not _remove_if_abandoned(temporary):
            continue
        try:
            handle = _create(temporary)
        except FileExistsError:  # another process was faster
            continue
        locked = try_flock(handle)
        if locked and is_same_file(handle, temporary):
            return handle, temporary
        os.close(handle)
        if locked is None:  # without locks nobody can tell whether a file is in use: take a name that nobody else has
            temporary.unlink(missing_ok=True)
            temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{UNFINISHED}")
            return _create(temporary), temporary
    raise AssertionError("there are always more numbers")


def _create(path: Path) -> int:
    """Create a file with the permissions that the umask gives; the system knows it without being asked to set it."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def _remove_if_abandoned(path: Path, kind: int = stat.S_IFREG) -> bool:
    """Remove a temporary file or folder if no living process has locked it; return whether nothing is there now.

    Args:
        path: the file or folder.
        kind: what it must be, as in `stat.S_IFMT`; anything else stays.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:  # a link, or the file of another user
        return False
    try:
        if stat.S_IFMT(os.fstat(handle).st_mode) != kind:
            return False
        if not (try_flock(handle) and is_same_file(handle, path)):
            return False
        if kind == stat.S_IFDIR:
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return not os.path.lexists(path)
    except OSError:
        return False
    finally:
        os.close(handle)


@contextmanager
def _written_into(path: Path, target: int | Path) -> Iterator[Path]:
    """Yield a temporary path elsewhere; on success its content is written into ``target``."""
    with tempfile.TemporaryDirectory(prefix="fastccsa-") as folder:
        temporary = Path(folder) / "content"
        temporary.touch()
        yield temporary
        try:
            with open(temporary, "rb") as source, os.fdopen(open_special(target), "wb") as sink:
                shutil.copyfileobj(source, sink)
        except OSError as error:
            number = error.errno or 0
            raise WriteError(f"cannot write {path}: {os.strerror(number)}; choose another file", number) from error


def _mode_of(path: Path) -> int | None:
    """Return the permissions of a file that is to be replaced; None if there is no such regular file."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) & 0o777 if stat.S_ISREG(status.st_mode) else None


def _sync(path: Path) -> None:
    with open(path, "rb") as written:
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames in a folder durable; file systems that do not support this do not need it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
