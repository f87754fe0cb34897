"""What tells whether two image files are one: a hash of their bytes, and a hash of their look."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.machine import usable_cpus

# In place of a look: the image cannot be decoded; it is too even to be told from others; it was not looked at.
UNREADABLE = "unreadable"
FLAT = "flat"
NOT_LOOKED_AT = ""

BITS = 256

_SIDE = 64  # the image is reduced to a square of this side
_KEPT = 16  # of its cosine coefficients, the lowest of each direction
_LEAST_CONTRAST = 2.0  # grey levels; noise alone gives that

_COLUMNS = ("image", "bytes", "modified_ns", "content", "look")


Stamp = tuple[str, str]  # bytes, time of change in ns; as the cache writes them


class Fingerprint(NamedTuple):
    """What an image file is, in brief.

    Attributes:
        content: SHA-256 of the file's bytes, hexadecimal.
        look: the perceptual hash, 64 hexadecimal digits; or ``UNREADABLE``, ``FLAT`` or ``NOT_LOOKED_AT``.
    """

    content: str
    look: str


def fingerprint(
    paths: Sequence[str], cache: Path, look: bool = True, progress: bool = False, workers: int | None = None
) -> list[Fingerprint]:
    """Return the fingerprint of each image file.

    Files whose size and time of change are those in the cache are not read again. What was computed is added
    to the cache also when the run is interrupted.

    Args:
        paths: absolute paths.
        cache: CSV file of earlier fingerprints; may be missing.
        look: also decode the images for their perceptual hash; else no look is returned, cached or not.
        progress: show a progress bar on stderr.
        workers: threads; None is one for each usable CPU core.

    Raises:
        InputError: a file cannot be read, or the cache cannot be written.
    """
    known = _Cache(cache)
    waiting = [path for path in dict.fromkeys(paths) if not known.has(path, look)]
    if waiting:
        computed = _compute(waiting, look, workers or usable_cpus())
        bar = tqdm(
            computed, total=len(waiting), desc="comparing images", unit="image", disable=not progress, leave=False
        )
        try:
            for path, one in zip(waiting, bar, strict=True):
                known.add(path, one)
        finally:
            known.write()
    prints = [known.get(path) for path in paths]
    return prints if look else [one._replace(look=NOT_LOOKED_AT) for one in prints]


def perceptual_hash(image: Image.Image) -> str:
    """Return the 256-bit perceptual hash of an image, or ``FLAT``.

    The image is reduced to 64x64 grey values; each bit tells whether one of its 16x16 lowest cosine
    coefficients lies above their median (the DCT hash of C. Zauner, Implementation and Benchmarking of
    Perceptual Image Hash Functions, 2010, there with 8x8). Hashes of one picture at another size or quality
    differ in few bits, those of different pictures in about half.
    """
    grey = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    pixels = np.asarray(grey, dtype=np.float64)
    if pixels.std() < _LEAST_CONTRAST:
        return FLAT
    coefficients = _COSINES @ pixels @ _COSINES.T
    return np.packbits(coefficients > np.median(coefficients)).tobytes().hex()


def look_bits(looks: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Return perceptual hashes as bits: uint8 ``[n, 256]``."""
    packed = np.frombuffer(bytes.fromhex("".join(looks)), dtype=np.uint8)
    return np.unpackbits(packed.reshape(len(looks), BITS // 8), axis=1)


def _cosines() -> npt.NDArray[np.float64]:
    """Return the lowest rows of the cosine transform (DCT-II, unscaled): float64 ``[_KEPT, _SIDE]``."""
    frequency, position = np.arange(_KEPT)[:, None], np.arange(_SIDE)[None, :]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * _SIDE))


_COSINES = _cosines()


def _compute(paths: Sequence[str], look: bool, workers: int) -> Iterator[Fingerprint]:
    Image.init()  # loads Pillow's formats; threads that did so at once could miss one
    # Threads, not processes: hashing, decoding and resizing all release the interpreter's lock.
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(lambda path: _fingerprint(path, look), paths)
    finally:
        pool.shutdown(cancel_futures=True)


def _fingerprint(path: str, look: bool) -> Fingerprint:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the image {path}: {error.strerror}") from error
    return Fingerprint(hashlib.sha256(content).hexdigest(), _look(content) if look else NOT_LOOKED_AT)


def _look(content: bytes) -> str:
    try:
        with Image.open(io.BytesIO(content)) as image:
            # JPEG files can be decoded at an eighth of their size, many times faster.
            image.draft("L", (_SIDE, _SIDE))
            return perceptual_hash(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # what Pillow raises for broken files
        return UNREADABLE


class _Cache:
    """The fingerprints of earlier runs, by path, with the size and time of change that their files had."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read_cache(path)
        self._stamps: dict[str, Stamp] = {}

    def has(self, image: str, look: bool) -> bool:
        """Tell whether a file's fingerprint is known and holds, with its look where that is asked for."""
        self._stamps[image] = _stamp(image)
        stamp, known = self._known.get(image, (None, None))
        return known is not None and stamp == self._stamps[image] and not (look and known.look == NOT_LOOKED_AT)

    def get(self, image: str) -> Fingerprint:
        return self._known[image][1]

    def add(self, image: str, computed: Fingerprint) -> None:
        """Add a fingerprint, of the file as it was when :meth:`has` was asked."""
        self._known[image] = self._stamps[image], computed

    def write(self) -> None:
        with write_atomically(self._path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_COLUMNS)
            writer.writerows((image, *stamp, *known) for image, (stamp, known) in sorted(self._known.items()))


def _stamp(path: str) -> Stamp:
    try:
        status = os.stat(path)
    except OSError as error:
        raise InputError(f"cannot read the image {path}: {error.strerror}") from error
    return str(status.st_size), str(status.st_mtime_ns)


def _read_cache(cache: Path) -> dict[str, tuple[Stamp, Fingerprint]]:
    """Return the cached fingerprints; a cache that cannot be read is as good as none."""
    known: dict[str, tuple[Stamp, Fingerprint]] = {}
    try:
        with open(cache, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                image, size, modified, content, look = (row[column] for column in _COLUMNS)
                if len(content) == 64 and (look in (UNREADABLE, FLAT, NOT_LOOKED_AT) or len(look) == BITS // 4):
                    known[image] = (size, modified), Fingerprint(content, look)
    except (OSError, KeyError, TypeError, UnicodeDecodeError, csv.Error):
        return {}
    return known
