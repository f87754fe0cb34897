"""Unpacking the .zip files that collections are published in, without trusting them.

An entry may not leave the archive's folder, and an archive may not grow beyond all proportion: the archive
is refused as a whole before anything of it is written (an archive within it, when its turn comes).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tqdm import tqdm

from fastccsa.system.errors import InputError

_CHUNK = 1 << 20  # bytes
_NESTED = 2  # how deep archives may lie in archives; Dataverse's HAM10000 has one level
_DONE = ".unpacked"  # marks the folder of a nested archive, which is not kept, as whole


class Limits(NamedTuple):
    """What an archive may hold before it is taken for a zip bomb.

    Attributes:
        entries: number of files.
        free_bytes: size when unpacked that is fine whatever the ratio.
        ratio: unpacked to packed size, beyond that. Images hardly shrink; the masks of PH2 shrink most, but
            they are a part.
    """

    entries: int = 1_000_000
    free_bytes: int = 1 << 30
    ratio: float = 50.0


def is_archive(path: Path) -> bool:
    """Tell whether a path is that of a .zip file."""
    return path.suffix.lower() == ".zip" and path.is_file()


def unpack(archive: Path, parent: Path, progress: bool = False, limits: Limits | None = None) -> Path:
    """Unpack a .zip, and the .zip files in it, into a folder of its own below ``parent``.

    The folder is named after the archive and a checksum of its table of contents, so that two archives of one
    name do not meet. Files that are there already are kept: an interrupted unpacking goes on where it was, and
    a finished one is left as it is.

    Args:
        archive: the .zip file.
        parent: where the folder is to be.
        progress: show a progress bar on stderr.
        limits: what the archive may hold.

    Returns:
        The folder.

    Raises:
        InputError: it is not a sound .zip, needs a password, an entry would leave the folder or is a link, the
            limits are exceeded, or the disk is full or cannot be written.
    """
    limits = limits or Limits()
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = _checked(opened, archive, limits)
            folder = parent / f"{archive.stem}-{_checksum(entries)}"
            _unpack_into(folder, opened, entries, archive, progress, limits, depth=0)
    except NotImplementedError as error:  # such as Deflate64, which Windows uses for large archives
        raise InputError(f"{archive}: {error}; unpack it yourself and give the folder") from error
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise InputError(f"{archive} is not a sound .zip ({error}); download it again") from error
    except OSError as error:
        raise InputError(f"cannot unpack {archive} into {parent}: {error.strerror or error}") from error
    return folder


class _Entry(NamedTuple):
    info: zipfile.ZipInfo
    target: PurePosixPath  # below the archive's folder


def _checked(opened: zipfile.ZipFile, archive: Path, limits: Limits) -> list[_Entry]:
    """Return the files of an archive, all of them safe to unpack."""
    # Some Windows programs write folders with a backslash at the end, which is_dir() does not know.
    infos = [info for info in opened.infolist() if not info.orig_filename.endswith(("/", "\\"))]
    unpacked = sum(info.file_size for info in infos)
    packed = max(1, sum(info.compress_size for info in infos))
    # Entries may share their packed bytes, which a file of this size cannot hold one after the other.
    packed = min(packed, max(1, archive.stat().st_size))
    if len(infos) > limits.entries:
        raise InputError(f"{archive} holds {len(infos)} files, more than {limits.entries}; unpack it yourself")
    if unpacked > limits.free_bytes and unpacked > limits.ratio * packed:
        raise InputError(
            f"{archive} would grow {unpacked / packed:.0f} times when unpacked, as no collection of images does; "
            "download it again, or unpack it yourself and give the folder"
        )
    return [_Entry(info, _safe_target(info, archive)) for info in infos]


def _safe_target(info: zipfile.ZipInfo, archive: Path) -> PurePosixPath:
    """Return where an entry belongs below the archive's folder, or refuse it."""
    # orig_filename: what the archive says, before zipfile cut it at a NUL or turned separators.
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
    raise InputError(f"{archive} holds the entry {info.orig_filename!r} {problem}; unpack it yourself if you trust it")


def _checksum(entries: Sequence[_Entry]) -> str:
    digest = hashlib.sha256()
    for info, target in sorted(entries, key=lambda entry: str(entry.target)):
        digest.update(f"{target}\0{info.file_size}\0{info.CRC}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:8]


def _unpack_into(
    folder: Path,
    opened: zipfile.ZipFile,
    entries: Sequence[_Entry],
    archive: Path,
    progress: bool,
    limits: Limits,
    depth: int,
) -> None:
    waiting = [entry for entry in entries if not _is_there(folder, entry)]
    missing = sum(entry.info.file_size for entry in waiting)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise InputError(
            f"{archive} needs {missing / 1e9:.1f} GB when unpacked, and {folder} has {free / 1e9:.1f} GB left; "
            "choose another place with --unpack DIR"
        )
    with tqdm(
        total=missing, unit="B", unit_scale=True, disable=not progress, leave=False, desc=f"unpacking {archive.name}"
    ) as bar:
        for entry in waiting:
            if _is_nested(entry) and depth < _NESTED:
                _unpack_nested(folder, opened, entry, progress, limits, depth + 1)
            else:
                _write(opened, entry.info, folder / entry.target)
            bar.update(entry.info.file_size)


def _unpack_nested(
    folder: Path, opened: zipfile.ZipFile, entry: _Entry, progress: bool, limits: Limits, depth: int
) -> None:
    """Unpack an archive that lies in an archive into a folder of its name, and do not keep it."""
    inside = folder / entry.target.with_suffix("")
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder) as scratch:
        nested = Path(scratch) / entry.target.name
        _write(opened, entry.info, nested)
        with zipfile.ZipFile(nested) as opened_nested:
            entries = _checked(opened_nested, nested, limits)
            _unpack_into(inside, opened_nested, entries, nested, progress, limits, depth)
    (inside / _DONE).touch()


def _is_nested(entry: _Entry) -> bool:
    return entry.target.suffix.lower() == ".zip"


def _is_there(folder: Path, entry: _Entry) -> bool:
    """Tell whether an entry is unpacked: files are renamed into place whole, so their size tells."""
    if _is_nested(entry) and (folder / entry.target.with_suffix("") / _DONE).exists():
        return True
    target = folder / entry.target
    return target.is_file() and target.stat().st_size == entry.info.file_size


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Write one entry aside and rename it into place; zipfile stops at its stated size and checks its CRC."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.part")
    try:
        with opened.open(info) as source, open(aside, "wb") as sink:
            shutil.copyfileobj(source, sink, _CHUNK)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
