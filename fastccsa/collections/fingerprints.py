"""Fingerprints of image files: a hash of the bytes and a perceptual hash of the pixels, with a cache on disk."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from fastccsa.formats.decode import open_image, upright_rgb
from fastccsa.formats.errors import BrokenImageError
from fastccsa.formats.files import read_file
from fastccsa.system.files import write_atomically
from fastccsa.system.machine import usable_cpus

# Values of `Fingerprint.look` that are not hashes.
UNREADABLE = "unreadable"  # the image cannot be decoded
FLAT = "flat"  # the image has too little contrast for a meaningful hash
NOT_COMPUTED = ""

BITS = 256

_SIDE = 64  # side of the square that the image is reduced to, in pixels
_KEPT = 16  # lowest cosine coefficients kept along each axis
_BATCH = 16  # most images that a thread takes at a time
_MIN_CONTRAST = 2.0  # standard deviation in grey levels; noise can be as high

_COLUMNS = ("image", "bytes", "modified_ns", "content", "look")

Stamp = tuple[str, str]  # size in bytes and modification time in ns, as strings in the cache


class Fingerprint(NamedTuple):
    """Hashes that identify an image file.

    Attributes:
        content: SHA-256 of the file's bytes, 64 hexadecimal digits; "" if the file cannot be read.
        look: perceptual hash, 64 hexadecimal digits; or ``UNREADABLE``, ``FLAT`` or ``NOT_COMPUTED``.
    """

    content: str
    look: str


def fingerprint(
    paths: Sequence[str], cache: Path | None, look: bool = True, progress: bool = False, workers: int | None = None
) -> list[Fingerprint]:
    """Compute the fingerprint of each image file.

    Files whose size and modification time match the cache are not read again. New fingerprints are added to the
    cache, even if the run is interrupted; those of unreadable images are not, because a decoder may be installed later.

    Args:
        paths: absolute paths.
        cache: CSV file with earlier fingerprints; it need not exist. None keeps nothing.
        look: return perceptual hashes. If False, every ``look`` is ``NOT_COMPUTED``, or ``UNREADABLE`` for an image
            that cannot be decoded.
        progress: show a progress bar on stderr.
        workers: number of threads; None for one per usable CPU core.

    Raises:
        InputError: the cache cannot be written.
    """
    known = _Cache(cache)
    pending = [path for path in dict.fromkeys(paths) if not known.has(path)]
    if pending:
        computed = _compute(pending, workers or usable_cpus())
        bar = tqdm(
            computed, total=len(pending), desc="comparing images", unit="image", disable=not progress, leave=False
        )
        try:
            for path, one in zip(pending, bar, strict=True):
                known.add(path, one)
        finally:
            known.write()
    prints = [known.get(path) for path in paths]
    if look:
        return prints
    return [one if one.look == UNREADABLE else one._replace(look=NOT_COMPUTED) for one in prints]


def perceptual_hash(image: Image.Image) -> str:
    """Compute the 256-bit perceptual hash of an image, or return ``FLAT``.

    The image is reduced to 64x64 grey values. Each bit says whether one of the 16x16 lowest cosine coefficients
    is above their median (the DCT hash of C. Zauner, Implementation and Benchmarking of Perceptual Image Hash
    Functions, 2010, who uses 8x8). Hashes of one picture at different sizes or qualities differ in a few bits; hashes
    of different pictures differ in about half of them.
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.float64)
    if pixels.std() < _MIN_CONTRAST:
        return FLAT
    coefficients = _COSINES @ pixels @ _COSINES.T
    return np.packbits(coefficients > np.median(coefficients)).tobytes().hex()


def look_bits(looks: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Convert perceptual hashes to bits: uint8 ``[n, 256]``."""
    packed = np.frombuffer(bytes.fromhex("".join(looks)), dtype=np.uint8)
    return np.unpackbits(packed.reshape(len(looks), BITS // 8), axis=1)


def _cosines() -> npt.NDArray[np.float64]:
    """Return the lowest rows of the cosine transform (DCT-II, unscaled): float64 ``[_KEPT, _SIDE]``."""
    frequency, position = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None, :]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * _SIDE))


_COSINES = _cosines()


def _compute(paths: Sequence[str], workers: int) -> Iterator[Fingerprint]:
    # Threads are enough: hashing, decoding and resizing all release the GIL.
    pool = ThreadPoolExecutor(workers)
    size = min(_BATCH, 1 + len(paths) // 1000)  # of few images, an interruption should not cost any
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    try:
        for prints in pool.map(_fingerprints, batches):
            yield from prints
    finally:
        pool.shutdown(cancel_futures=True)


def _fingerprints(paths: Sequence[str]) -> list[Fingerprint]:
    return [_fingerprint(path) for path in paths]


def _fingerprint(path: str) -> Fingerprint:
    try:
        content = read_file(path)
    except BrokenImageError:
        return Fingerprint("", UNREADABLE)
    return Fingerprint(hashlib.sha256(content).hexdigest(), _look(content))


def _look(content: bytes) -> str:
    try:
        image = open_image(content)
        # JPEG files can be decoded at an eighth of their size, which is many times faster.
        image.draft("L", (_SIDE, _SIDE))
        return perceptual_hash(upright_rgb(image))
    except BrokenImageError:
        return UNREADABLE


class _Cache:
    """Fingerprints of earlier runs by path, with the size and modification time of the files."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known = {} if path is None else _read_cache(path)
        self._stamps: dict[str, Stamp] = {}

    def has(self, image: str) -> bool:
        """Return whether the fingerprint of a file is known and current."""
        self._stamps[image] = _stamp(image)
        stamp, _ = self._known.get(image, (None, None))
        return stamp == self._stamps[image]

    def get(self, image: str) -> Fingerprint:
        return self._known[image][1]

    def add(self, image: str, computed: Fingerprint) -> None:
        """Add the fingerprint of a file as it was when :meth:`has` was called."""
        self._known[image] = self._stamps[image], computed

    def write(self) -> None:
        if self._path is None:
            return
        rows = sorted((image, *entry) for image, entry in self._known.items() if entry[1].look != UNREADABLE)
        with (
            write_atomically(self._path, follow_links=False) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows((image, *stamp, *known) for image, stamp, known in rows)


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError:
        return "", ""
    return str(status.st_size), str(status.st_mtime_ns)


def _read_cache(cache: Path) -> dict[str, tuple[Stamp, Fingerprint]]:
    """Read the cached fingerprints; an unreadable cache counts as empty."""
    known: dict[str, tuple[Stamp, Fingerprint]] = {}
    try:
        with open(cache, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                image, size, modified, content, look = (row[column] for column in _COLUMNS)
                if len(content) == 64 and (look == FLAT or len(look) == BITS // 4):
                    known[image] = (size, modified), Fingerprint(content, look)
    except (OSError, KeyError, TypeError, UnicodeDecodeError, csv.Error):
        return {}
    return known
