"""A store of crops: each image is decoded, resized and cropped once, and kept in a file.

The folder of a store contains ``crops.bin``, the raw bytes of uint8 [rows, crop, crop, 3] (270 kB per image at size
224), ``index.json`` (`Index`) and ``lock``. A run adds images that are missing or have changed. If a run is killed, the
crops it has finished are kept. Deleting the folder is safe unless a run is using it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from fastccsa.images.crop_file import CacheError, CropFile
from fastccsa.images.source import ImageSource
from fastccsa.images.store_crops import Crop, CropMaker
from fastccsa.images.store_index import Entry, Index
from fastccsa.images.transforms import IntArray, Transforms
from fastccsa.system.files import remove_leftovers, writable_place, write_atomically
from fastccsa.system.locks import open_shared
from fastccsa.system.machine import usable_cpus

logger = logging.getLogger("fastccsa.images")

FORMAT = 1
INDEX_FILE, ARRAY_FILE = "index.json", "crops.bin"
MAKERS = ("dali", "torchvision")  # backends that make crops

# How often the index is written while building. After a kill, crops made since the last write are made again.
_CHECKPOINT_SECONDS = 2.0
_CHECKPOINT_SHARE = 0.05  # maximum share of the time spent on writing the index
_CHANNELS = 3
_VERIFIED_TOGETHER = 64  # crops that a thread verifies at a time
_WRITERS = 2  # threads that write crops: a GPU makes them faster than one computes their checksums


_Row = tuple[Crop, "int | None"]  # a crop, and the CRC-32 of its row once that is written


@dataclass(frozen=True)
class Store:
    """A store that contains every valid image of a manifest.

    Attributes:
        array: the crops, uint8 [rows, crop, crop, 3], read from the file with each access.
        rows: int64 [n], the row of each image of the manifest; -1 for broken images.
        checksums: the CRC-32 of each of these rows.
    """

    array: CropFile
    rows: IntArray
    checksums: Mapping[int, int]


def open_store(
    source: ImageSource,
    transforms: Transforms,
    folder: Path,
    backend: str,
    num_threads: int | None = None,
    verify: bool = False,
    device: torch.device | None = None,
) -> Store:
    """Open the store of some images, after adding missing crops.

    Only one process at a time adds crops; others wait for it and then use them. Where none are missing, processes do
    not wait for each other. Broken images are checked each time and recorded by ``source``, so files that have been
    repaired are added.

    Args:
        source: the images.
        transforms: provides the sizes.
        folder: folder for stores; each combination of sizes and backend gets a subfolder.
        backend: "dali" or "torchvision", which makes the crops.
        num_threads: number of threads that make crops; None for one per usable CPU.
        verify: compare the images' rows with their checksums, even if the file has not been modified since the last
            time.
        device: where DALI makes crops; None for the CPU. The store is the same for both.

    Returns:
        The store.

    Raises:
        InputError: the folder cannot be written, the disk is full, an image is broken and the source's ``on_error`` is
            "raise", or no image can be read.
        DaliError: the backend is "dali", crops are missing, and DALI cannot make them.
    """
    settings = _settings(transforms, backend)
    folder = _subfolder(folder, settings)
    with _reported(folder):
        with _locked(folder, fcntl.LOCK_SH):
            store = _complete_store(folder, settings, transforms, source, verify)
        if store is not None:
            return store
    with _reported(folder), _locked(folder, fcntl.LOCK_EX):
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        remove_leftovers(folder)  # of a run that was killed while writing the index
        builder = _Builder(folder, settings, transforms)
        try:
            builder.check_rows(source, verify)
            todo = builder.plan(source)
            if todo:
                maker = CropMaker(source, transforms, backend, num_threads, device or torch.device("cpu"))
                builder.build(maker, todo)
            return builder.result(source)
        finally:
            builder.close()


def open_complete_store(
    source: ImageSource, transforms: Transforms, folder: Path, backend: str, verify: bool = False
) -> Store | None:
    """Open the store of some images if there is one with all of their crops; else return None, and change nothing.

    Args, and errors: as for `open_store`.
    """
    settings = _settings(transforms, backend)
    folder = _subfolder(folder, settings)
    if not os.path.exists(folder / INDEX_FILE):  # which Path.exists may not be allowed to find out
        return None
    with _reported(folder), _locked(folder, fcntl.LOCK_SH):
        return _complete_store(folder, settings, transforms, source, verify)


def stored_images(paths: Iterable[str], transforms: Transforms, folder: Path, backend: str) -> int:
    """Return for how many of the images ``backend``'s store in ``folder`` already takes space on the disk."""
    settings = _settings(transforms, backend)
    folder, row_bytes = _subfolder(folder, settings), transforms.crop**2 * _CHANNELS
    try:
        rows = (folder / ARRAY_FILE).stat().st_size // row_bytes
    except OSError:
        return 0
    entries = Index.read(folder / INDEX_FILE, settings, rows, quiet=True).entries
    found = (entry for path in paths if (entry := entries.get(path)) is not None and entry.describes(path))
    return sum(entry.row < rows for entry in found)


def has_crops(paths: Iterable[str], transforms: Transforms, folder: Path, backend: str) -> bool:
    """Return whether ``backend``'s store in ``folder`` has the crops of all of these images."""
    settings = _settings(transforms, backend)
    try:
        return _complete_index(_subfolder(folder, settings), settings, transforms, paths) is not None
    except OSError:
        return False


def can_add_crops(transforms: Transforms, folder: Path, backend: str) -> bool:
    """Return whether this user may add crops to ``backend``'s store in ``folder``, which may be missing."""
    store = _subfolder(folder, _settings(transforms, backend))
    array = store / ARRAY_FILE
    return writable_place(store) is not None and (not os.path.exists(array) or os.access(array, os.W_OK))


def _settings(transforms: Transforms, backend: str) -> dict[str, Any]:
    return {"format": FORMAT, "resize": transforms.resize, "crop": transforms.crop, "backend": backend}


def _subfolder(folder: Path, settings: dict[str, Any]) -> Path:
    return folder / hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=6).hexdigest()


def _complete_store(
    folder: Path, settings: dict[str, Any], transforms: Transforms, source: ImageSource, verify: bool
) -> Store | None:
    """Return the store if nothing has to be added or repaired, without changing it; else None."""
    index = _complete_index(folder, settings, transforms, (path for path in source.paths if path not in source.broken))
    if index is None:
        return None
    array = folder / ARRAY_FILE
    if verify:
        entries = (index.entries.get(path) for path in source.paths)
        found = [entry for entry in entries if entry is not None and entry.pixels is not None]
        with open(array, "rb") as file:
            if _damaged(file.fileno(), transforms.crop**2 * _CHANNELS, found):
                return None
    return _store(array, index, source, transforms.crop)


def _complete_index(
    folder: Path, settings: dict[str, Any], transforms: Transforms, paths: Iterable[str]
) -> Index | None:
    """Return the index of the store if all of these images have a crop, and the array has not changed since."""
    try:
        status = (folder / ARRAY_FILE).stat()
    except FileNotFoundError:
        return None
    row_bytes = transforms.crop**2 * _CHANNELS
    index = Index.read(folder / INDEX_FILE, settings, status.st_size // row_bytes, quiet=True)
    if status.st_mtime_ns != index.array_mtime_ns or status.st_size < index.rows * row_bytes:
        return None
    entries = ((path, index.entries.get(path)) for path in paths)
    return index if all(entry is not None and entry.is_of(path) for path, entry in entries) else None


def _damaged(file: int, row_bytes: int, entries: Sequence[Entry]) -> list[Entry]:
    """Return those of the entries whose rows in the array ``file`` do not have their checksums."""

    def check(part: Sequence[Entry]) -> list[Entry]:
        rows = ((entry, os.pread(file, row_bytes, entry.row * row_bytes)) for entry in part)
        return [entry for entry, row in rows if zlib.crc32(row) != entry.pixels]

    damaged = []
    parts = [entries[start : start + _VERIFIED_TOGETHER] for start in range(0, len(entries), _VERIFIED_TOGETHER)]
    progress = tqdm(total=len(entries), desc="verifying crops", unit="image", disable=None)
    with progress, ThreadPoolExecutor(usable_cpus(), thread_name_prefix="fastccsa-verifier") as threads:
        for part, found in zip(parts, threads.map(check, parts), strict=True):
            damaged += found
            progress.update(len(part))
    return damaged


def _store(array: Path, index: Index, source: ImageSource, side: int) -> Store:
    entries = [index.entries.get(path) for path in source.paths]
    rows = [entry.row if entry is not None and entry.pixels is not None else -1 for entry in entries]
    checksums = {entry.row: entry.pixels for entry in entries if entry is not None and entry.pixels is not None}
    return Store(CropFile(array, index.rows, side), np.array(rows, np.int64), checksums)


class _Builder:
    """Brings a store up to date. The caller must hold the lock."""

    def __init__(self, folder: Path, settings: dict[str, Any], transforms: Transforms) -> None:
        self._index_path = folder / INDEX_FILE
        self._array_path = folder / ARRAY_FILE
        self._side = transforms.crop
        self._row_bytes = self._side * self._side * _CHANNELS
        self._file = open_shared(self._array_path)
        rows = os.fstat(self._file).st_size // self._row_bytes
        self._index = Index.read(self._index_path, settings, rows)
        if 0 < rows < self._index.rows:
            self._replace_file()

    def _replace_file(self) -> None:
        """Go on with a copy of a file that was cut short: a run that is reading it must get an error, not zeros."""
        with write_atomically(self._array_path, follow_links=False) as copy:
            shutil.copyfile(self._array_path, copy)
        os.close(self._file)
        self._file = open_shared(self._array_path)

    def close(self) -> None:
        os.close(self._file)

    def check_rows(self, source: ImageSource, verify: bool) -> None:
        """Mark damaged rows as missing: of all images if the file was modified, or of the source's to ``verify``."""
        done = [entry for entry in self._index.entries.values() if entry.pixels is not None]
        if os.fstat(self._file).st_mtime_ns == self._index.array_mtime_ns:
            wanted = set(source.paths) if verify else set()
            done = [entry for path, entry in self._index.entries.items() if entry.pixels is not None and path in wanted]
        if not done:
            return
        damaged = _damaged(self._file, self._row_bytes, done)
        for entry in damaged:
            entry.pixels = None
        if damaged:
            logger.warning(
                "%s: %d of %d crops are damaged; making them again", self._array_path, len(damaged), len(done)
            )
        self._save()

    def plan(self, source: ImageSource) -> list[int]:
        """Assign a row to every image and reserve disk space for it; return the images to make crops of."""
        changed = False
        for path in source.paths:
            if path not in source.broken:
                try:
                    changed |= self._index.plan(path)
                except OSError as error:
                    # The file vanished or is not readable, which making its crop will report.
                    logger.debug("%s: %s", path, error)
        todo = [index for index, path in enumerate(source.paths) if self._needs(source, path)]
        # A path that is in the manifest twice is processed once.
        todo = list({source.paths[index]: index for index in todo}.values())
        if changed or todo:
            self._reserve(len(todo))
            self._save()
        return todo

    def build(self, maker: CropMaker, todo: list[int]) -> None:
        """Make crops, and write them to the array before they are added to the index."""
        saved, cost = time.monotonic(), 0.0
        progress = tqdm(total=len(todo), desc="making crops", unit="image", disable=None)
        pending: deque[Future[list[_Row]]] = deque()

        def finish_oldest() -> None:
            rows = pending.popleft().result()
            for made, pixels in rows:
                entry = self._index.entries.get(made.path)
                if entry is not None:
                    self._keep(entry, made.content, pixels, made.broken)
            progress.update(len(rows))

        writers = ThreadPoolExecutor(_WRITERS, thread_name_prefix="fastccsa-writer")
        with progress, closing(maker.make(todo)) as batches, writers:
            try:
                for crops in batches:
                    pending.append(writers.submit(self._write, crops))
                    if len(pending) > _WRITERS:
                        finish_oldest()
                    now = time.monotonic()
                    if now - saved > max(_CHECKPOINT_SECONDS, cost / _CHECKPOINT_SHARE):
                        self._save()
                        saved = time.monotonic()
                        cost = saved - now
                while pending:
                    finish_oldest()
            finally:
                with suppress(OSError):  # which is the reason for being here, and is raised already
                    while pending:
                        finish_oldest()
                self._save()

    def result(self, source: ImageSource) -> Store:
        return _store(self._array_path, self._index, source, self._side)

    def _needs(self, source: ImageSource, path: str) -> bool:
        entry = self._index.entries.get(path)
        return path not in source.broken and (entry is None or entry.pixels is None)

    def _write(self, crops: list[Crop]) -> list[_Row]:
        """Write crops to their rows. Thread-safe.

        Returns:
            Each crop with the CRC-32 of its row, or None if there is nothing to write.
        """
        return [(made, self._write_row(made)) for made in crops]

    def _write_row(self, made: Crop) -> int | None:
        entry = self._index.entries.get(made.path)
        if entry is None or made.pixels is None:
            return None
        data = np.ascontiguousarray(made.pixels).data.cast("B")
        start = entry.row * self._row_bytes
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], start + written)
        return zlib.crc32(data)

    def _keep(self, entry: Entry, content: int | None, pixels: int | None, broken: str | None) -> None:
        """Record that a row is finished: ``pixels`` is its CRC-32, or None if the image is broken."""
        entry.content, entry.broken = content, broken
        if pixels is not None:
            entry.pixels = pixels

    def _reserve(self, images: int) -> None:
        """Extend the array to its final size, so that a full disk is found before crops are made."""
        size, needed = os.fstat(self._file).st_size, self._index.rows * self._row_bytes
        if needed <= size:
            return
        try:
            os.posix_fallocate(self._file, size, needed - size)
        except OSError as error:
            os.ftruncate(self._file, size)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            free = shutil.disk_usage(self._array_path).free
            raise CacheError(
                f"{self._array_path.parent}: the crops of {images} images need {(needed - size) / 1e9:.1f} GB and "
                f"{free / 1e9:.1f} GB are free; free some space, or use --cache none "
                "(in Python: cache=None, or cache_dir, a folder on another disk)"
            ) from error

    def _save(self) -> None:
        """Write the index after its rows are on the disk."""
        os.fdatasync(self._file)
        self._index.array_mtime_ns = os.fstat(self._file).st_mtime_ns
        self._index.write(self._index_path)


@contextmanager
def _locked(folder: Path, kind: int) -> Iterator[None]:
    """Hold the lock of the store, shared or exclusive. The system releases it when the process ends for any reason."""
    folder.mkdir(parents=True, exist_ok=True)
    file = open_shared(folder / "lock")
    try:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("%s: another run is making crops; waiting for it", folder)
            fcntl.flock(file, kind)
        yield
    finally:
        os.close(file)


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    """Turn an OSError into an InputError with a helpful message."""
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"{folder}: the store of crops cannot be written ({error.strerror or error}); make it writable, or use "
            "--cache none (in Python: cache=None, or cache_dir, another folder)"
        ) from error
