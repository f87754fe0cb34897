"""Safe unpacking of the .zip files that collections are published in.

An archive is rejected as a whole, before anything is written, if an entry would land outside its folder or if the
unpacked files would be far larger than the archive. Nested archives are checked when they are unpacked, and count
against the limits of the outermost one. Memory is bounded: see :mod:`fastccsa.collections.unzip`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from fastccsa.collections.unzip import pieces
from fastccsa.system.errors import InputError
from fastccsa.system.files import scratch_folder

_NESTED = 2  # maximum nesting depth of archives; Dataverse's HAM10000 has one level
_DONE = ".unpacked"  # marks the folder of a nested archive as complete; the archive itself is not kept


class Limits(NamedTuple):
    """Limits beyond which an archive, with all archives in it, counts as a zip bomb.

    Attributes:
        entries: maximum number of files.
        free_bytes: unpacked size in bytes up to which every ratio is accepted.
        ratio: maximum ratio of unpacked to packed size above ``free_bytes``. Images hardly compress. The masks of
            PH2 compress best, but they are only part of the archive.
    """

    entries: int = 1_000_000
    free_bytes: int = 1 << 30
    ratio: float = 50.0


class _Budget:
    """What is left of the limits of an archive while it and the archives in it are unpacked."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self._limits = limits
        self._size = max(1, archive.stat().st_size)
        self._packed: int | None = None
        self._unpacked = 0
        self._files = 0

    def spend(self, archive: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
        """Count the files of an archive; raise InputError if that is too much."""
        if self._packed is None:  # the outermost archive
            # Entries may overlap in their packed bytes, so their sum may exceed the size of the file.
            self._packed = min(max(1, sum(info.compress_size for info in infos)), self._size)
        self._unpacked += sum(info.file_size for info in infos)
        self._files += len(infos)
        if self._files > self._limits.entries:
            raise InputError(f"{archive} has {self._files} files, more than {self._limits.entries}; unpack it yourself")
        if self._unpacked > self._limits.free_bytes and self._unpacked > self._limits.ratio * self._packed:
            raise InputError(
                f"{archive} would grow {self._unpacked / self._packed:.0f} times when unpacked, which no collection "
                "of images does; download it again, or unpack it yourself and pass the folder"
            )


def is_archive(path: Path) -> bool:
    """Return whether ``path`` is a .zip file."""
    return path.suffix.lower() == ".zip" and path.is_file()


def unpack(archive: Path, parent: Path, progress: bool = False, limits: Limits | None = None) -> Path:
    """Unpack a .zip file and the .zip files in it into a new folder below ``parent``.

    The folder is named after the archive and a checksum of its table of contents, so that archives of the same
    name do not collide. Existing files are kept: interrupted unpacking resumes, and a complete folder is left
    unchanged.

    Args:
        archive: the .zip file.
        parent: folder in which to create the archive's folder.
        progress: show a progress bar on stderr.
        limits: limits on the archive's contents; None for the defaults.

    Returns:
        The folder with the unpacked files.

    Raises:
        InputError: the file is not a valid .zip or needs a password, an entry would land outside the folder or is
            a link, the limits are exceeded, or the disk is full or not writable.
    """
    try:
        budget = _Budget(archive, limits or Limits())
        with zipfile.ZipFile(archive) as opened:
            entries = _checked(opened, archive, budget)
            folder = parent / f"{archive.stem}-{_checksum(entries)}"
            _unpack_into(folder, opened, entries, archive=archive, progress=progress, budget=budget, depth=0)
    except NotImplementedError as error:  # for example Deflate64, which Windows uses for large archives
        raise InputError(f"{archive}: {error}; unpack it yourself and pass the folder") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{archive} is not a valid .zip ({error}); download it again") from error
    except OSError as error:
        raise InputError(f"cannot unpack {archive} into {parent}: {error.strerror or error}") from error
    return folder


class _Entry(NamedTuple):
    info: zipfile.ZipInfo
    target: PurePosixPath  # relative to the archive's folder


def _checked(opened: zipfile.ZipFile, archive: Path, budget: _Budget) -> list[_Entry]:
    """Return the files of an archive after checking that they are safe to unpack."""
    # Some Windows programs end folder names with a backslash, which is_dir() does not recognise.
    infos = [info for info in opened.infolist() if not info.orig_filename.endswith(("/", "\\"))]
    budget.spend(archive, infos)
    return [_Entry(info, _safe_target(info, archive)) for info in infos]


def _safe_target(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Return the path of an entry relative to the archive's folder; raise InputError if it is unsafe."""
    # orig_filename is the name in the archive, before zipfile cuts it at a NUL or converts separators.
    name = info.orig_filename.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in parts or "\0" in name or not parts:
        problem = "that would land outside its folder"
    elif stat.S_ISLNK(info.external_attr >> 16):
        problem = "that is a link"
    elif info.flag_bits & 1:
        problem = "that needs a password"
    else:
        return PurePosixPath(*parts)
    raise InputError(f"{archive} has the entry {info.orig_filename!r} {problem}; unpack it yourself if you trust it")


def _checksum(entries: Sequence[_Entry]) -> str:
    digest = hashlib.sha256()
    for info, target in sorted(entries, key=lambda entry: str(entry.target)):
        digest.update(f"{target}\0{info.file_size}\0{info.CRC}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:8]


def _unpack_into(
    folder: Path,
    opened: zipfile.ZipFile,
    entries: Sequence[_Entry],
    *,
    archive: Path,
    progress: bool,
    budget: _Budget,
    depth: int,
) -> None:
    pending = [entry for entry in entries if not _is_unpacked(folder, entry)]
    missing = sum(entry.info.file_size for entry in pending)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise InputError(
            f"{archive} needs {missing / 1e9:.1f} GB when unpacked, and {folder} has {free / 1e9:.1f} GB left; "
            "choose another folder with --unpack DIR"
        )
    with tqdm(
        total=missing, unit="B", unit_scale=True, disable=not progress, leave=False, desc=f"unpacking {archive.name}"
    ) as bar:
        for entry in pending:
            if _is_nested(entry) and depth < _NESTED:
                _unpack_nested(folder, opened, entry, progress=progress, budget=budget, depth=depth + 1)
            else:
                _write(opened, entry.info, folder / entry.target)
            bar.update(entry.info.file_size)


def _unpack_nested(
    folder: Path, opened: zipfile.ZipFile, entry: _Entry, *, progress: bool, budget: _Budget, depth: int
) -> None:
    """Unpack a nested archive into a folder with its name, and do not keep the archive."""
    inside = folder / entry.target.with_suffix("")
    with scratch_folder(folder, ".unpacking-") as scratch:
        nested = scratch / entry.target.name
        _write(opened, entry.info, nested)
        with zipfile.ZipFile(nested) as opened_nested:
            entries = _checked(opened_nested, nested, budget)
            _unpack_into(inside, opened_nested, entries, archive=nested, progress=progress, budget=budget, depth=depth)
    (inside / _DONE).touch()


def _is_nested(entry: _Entry) -> bool:
    return entry.target.suffix.lower() == ".zip"


def _is_unpacked(folder: Path, entry: _Entry) -> bool:
    """Return whether an entry is unpacked. Files are renamed into place when complete, so comparing sizes suffices."""
    if _is_nested(entry) and (folder / entry.target.with_suffix("") / _DONE).exists():
        return True
    target = folder / entry.target
    return target.is_file() and target.stat().st_size == entry.info.file_size


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Write one entry to a temporary file and rename it, after its size and its checksum were compared."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.part")
    temporary.unlink(missing_ok=True)  # of a run that was killed
    file = opened.fp
    assert file is not None  # it is open
    try:
        with open(temporary, "xb") as sink:  # a new file, so no link is followed
            for piece in pieces(file, info):
                sink.write(piece)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
