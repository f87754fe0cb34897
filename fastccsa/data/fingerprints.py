"""What tells whether two image files are one: a hash of their bytes, and a hash of their look."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from fastccsa.errors import InputError
from fastccsa.files import write_atomically

# In place of a look: the image cannot be decoded; it is too even to be told from others; it was not looked at.
UNREADABLE = "unreadable"
FLAT = "flat"
NOT_LOOKED_AT = ""

BITS = 256

_SIDE = 64  # the image is reduced to a square of this side
_KEPT = 16  # of its cosine coefficients, the lowest of each direction
_LEAST_CONTRAST = 2.0  # grey levels; noise alone gives that

_COLUMNS = ("image", "bytes", "modified_ns", "content", "look")


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
        look: also decode the images for their perceptual hash.
        progress: show a progress bar on stderr.
        workers: threads; None is one for each usable CPU core.

    Raises:
        InputError: a file cannot be read, or the cache cannot be written.
    """
    known = _read_cache(cache)
    stamps = {path: _stamp(path) for path in paths}
    found = {path: known[path][1] for path in paths if path in known and known[path][0] == stamps[path]}
    waiting = [path for path in stamps if path not in found or (look and found[path].look == NOT_LOOKED_AT)]
    if not waiting:
        return [found[path] for path in paths]
    # Threads, not processes: hashing, decoding and resizing all release the interpreter's lock.
    pool = ThreadPoolExecutor(workers or _usable_cores())
    try:
        prints = pool.map(lambda path: _fingerprint(path, look), waiting)
        bar = tqdm(prints, total=len(waiting), disable=not progress, leave=False, unit="image", desc="comparing images")
        for path, computed in zip(waiting, bar, strict=True):
            found[path] = computed
    finally:
        pool.shutdown(cancel_futures=True)
        _write_cache(cache, known | {path: (stamps[path], found[path]) for path in found})
    return [found[path] for path in paths]


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


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


Stamp = tuple[str, str]  # bytes, time of change in ns; as the cache writes them


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


def _write_cache(cache: Path, known: dict[str, tuple[Stamp, Fingerprint]]) -> None:
    with write_atomically(cache) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((image, *known[image][0], *known[image][1]) for image in sorted(known))
