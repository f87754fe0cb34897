"""A store of crops: decode, resize and centre crop done once for each image and kept in a memory-mapped array.

In the store's folder lie ``crops.bin``, uint8 [rows, crop, crop, 3] and nothing else (270 kB an image at size
224), ``index.json`` (`Index`) and ``lock``. A run that finds images missing, or changed since, adds them; a run
killed at any moment leaves what it had finished. Deleting the folder is always safe when no run uses it.
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
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fastccsa.images.crops import CropMaker
from fastccsa.images.source import ImageSource
from fastccsa.images.store_index import Entry, Index
from fastccsa.images.transforms import IntArray, Transforms
from fastccsa.system.errors import InputError

logger = logging.getLogger("fastccsa.images")

FORMAT = 1
FOLDER = ".fastccsa-cache"

# Between two writes of the index while building; what was made since the last is made again after a kill.
_CHECKPOINT_SECONDS = 2.0
_CHECKPOINT_SHARE = 0.05  # of the time, at most, goes into writing the index
_CHANNELS = 3


@dataclass(frozen=True)
class Store:
    """A store that has every whole image of a manifest.

    Attributes:
        array: uint8 [rows, crop, crop, 3], mapped into memory; writing to it changes nothing on the disk.
        rows: int64 [n], the row of each image of the manifest; -1 for broken ones.
    """

    array: np.ndarray
    rows: IntArray


def default_folder(manifest_folder: Path) -> Path:
    """Where stores are kept: beside the manifest, or in the user's cache where that cannot be written."""
    if os.access(manifest_folder, os.W_OK):
        return manifest_folder / FOLDER
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastccsa"


def open_store(
    source: ImageSource,
    transforms: Transforms,
    folder: Path,
    backend: str,
    num_threads: int | None = None,
    verify: bool = False,
) -> Store:
    """Open the store of some images, after making the crops that it lacks.

    One process at a time does so; others wait, and find the work done. Broken images are recorded by
    ``source``, each time, so that mended ones come in.

    Args:
        source: the images.
        transforms: their sizes.
        folder: where stores are kept; each set of sizes has a folder of its own in it.
        backend: "dali" or "torchvision", which makes the crops.
        num_threads: threads that make them; None for all usable CPUs.
        verify: compare every row with its checksum, also where nothing was written since the last time.

    Raises:
        InputError: the folder cannot be written, the disk is full, or no image can be read.
    """
    settings = {"format": FORMAT, "resize": transforms.resize, "crop": transforms.crop, "backend": backend}
    name = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=6).hexdigest()
    folder = folder / name
    with _told_plainly(folder), _locked(folder):
        for left in folder.glob(".index.json.*"):  # by a run killed while it wrote the index
            left.unlink()
        builder = _Builder(folder, Index.read(folder / "index.json", settings), transforms)
        try:
            builder.check_rows(verify)
            todo = builder.plan(source)
            if todo:
                builder.build(CropMaker(source, transforms, backend, num_threads), todo)
            return builder.result(source)
        finally:
            builder.close()


class _Builder:
    """Brings a store up to date. The caller holds its lock."""

    def __init__(self, folder: Path, index: Index, transforms: Transforms) -> None:
        self._index_path = folder / "index.json"
        self._array_path = folder / "crops.bin"
        self._index = index
        self._side = transforms.crop
        self._row_bytes = self._side * self._side * _CHANNELS
        self._file = os.open(self._array_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def close(self) -> None:
        os.close(self._file)

    def check_rows(self, always: bool) -> None:
        """Give up rows that are not what they were, where there is reason to doubt them."""
        done = [entry for entry in self._index.entries.values() if entry.pixels is not None]
        if not done or not (always or os.fstat(self._file).st_mtime_ns != self._index.array_mtime_ns):
            return
        damaged = 0
        for entry in tqdm(done, desc="verifying crops", unit="image", disable=None):
            if zlib.crc32(os.pread(self._file, self._row_bytes, entry.row * self._row_bytes)) != entry.pixels:
                entry.pixels = None
                damaged += 1
        if damaged:
            logger.warning("%s: %d of %d crops are damaged and made anew", self._array_path, damaged, len(done))
        self._save()

    def plan(self, source: ImageSource) -> list[int]:
        """Give every image its row and reserve the disk's space for it; returns the images to make."""
        changed = False
        for path in source.paths:
            if path not in source.broken:
                try:
                    changed |= self._index.plan(path)
                except OSError as error:
                    # It vanished, or may not be read: making its crop will find the same.
                    logger.debug("%s: %s", path, error)
        todo = [index for index, path in enumerate(source.paths) if self._needs(source, path)]
        # A path that stands twice in the manifest is made once.
        todo = list({source.paths[index]: index for index in todo}.values())
        if changed or todo:
            self._reserve(len(todo))
            self._save()
        return todo

    def build(self, maker: CropMaker, todo: list[int]) -> None:
        """Make crops, and write them before the index says so."""
        saved, cost = time.monotonic(), 0.0
        progress = tqdm(total=len(todo), desc="making crops", unit="image", disable=None)
        with progress, closing(maker.make(todo)) as crops:
            try:
                for made in crops:
                    entry = self._index.entries.get(made.path)
                    if entry is not None:
                        self._keep(entry, made.content, made.pixels, made.broken)
                    progress.update()
                    now = time.monotonic()
                    if now - saved > max(_CHECKPOINT_SECONDS, cost / _CHECKPOINT_SHARE):
                        self._save()
                        saved = time.monotonic()
                        cost = saved - now
            finally:
                self._save()

    def result(self, source: ImageSource) -> Store:
        entries = [self._index.entries.get(path) for path in source.paths]
        usable = [entry is not None and entry.pixels is not None for entry in entries]
        rows = [entry.row if there and entry else -1 for entry, there in zip(entries, usable, strict=True)]
        shape = (self._index.rows, self._side, self._side, _CHANNELS)
        # Copy-on-write: torch asks for memory that can be written.
        array = np.memmap(self._array_path, np.uint8, mode="c", shape=shape)
        return Store(array, np.array(rows, np.int64))

    def _needs(self, source: ImageSource, path: str) -> bool:
        entry = self._index.entries.get(path)
        return path not in source.broken and (entry is None or entry.pixels is None)

    def _keep(self, entry: Entry, content: int | None, pixels: np.ndarray | None, broken: str | None) -> None:
        entry.content, entry.broken = content, broken
        if pixels is None:
            return
        data = memoryview(pixels.tobytes())
        start = entry.row * self._row_bytes
        written = 0
        while written < len(data):
            written += os.pwrite(self._file, data[written:], start + written)
        entry.pixels = zlib.crc32(data)

    def _reserve(self, images: int) -> None:
        """Make the array as large as it will be, so that a full disk shows before any work is done."""
        size, wanted = os.fstat(self._file).st_size, self._index.rows * self._row_bytes
        if wanted <= size:
            return
        try:
            os.posix_fallocate(self._file, size, wanted - size)
        except OSError as error:
            os.ftruncate(self._file, size)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            free = shutil.disk_usage(self._array_path).free
            raise InputError(
                f"{self._array_path.parent}: the crops of {images} images need {(wanted - size) / 1e9:.1f} GB and "
                f"{free / 1e9:.1f} GB are free; free some, name a folder on another disk with cache_dir, or load "
                "with cache=None"
            ) from error

    def _save(self) -> None:
        """Write the index, after the rows that it speaks of are on the disk."""
        os.fdatasync(self._file)
        self._index.array_mtime_ns = os.fstat(self._file).st_mtime_ns
        self._index.write(self._index_path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the store's lock; the system frees it when the process ends, however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("%s: another run is making crops; waiting for it", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _told_plainly(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into a sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{folder}: the store of crops cannot be written ({error.strerror or error}); name another folder with "
            "cache_dir, or load with cache=None"
        ) from error
