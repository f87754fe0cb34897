"""The files that the image benchmark decodes: rendered ones, or the user's own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image

from fastccsa.collections.manifest import Manifest
from fastccsa.system.errors import InputError

SHAPES = ("600x450", "1024x768", "3000x2000")
DISTINCT = 8  # rendered images; the other files are copies of these, and are decoded like any other
ROWS = 1 << 14  # of the manifest, so that an epoch is long


@dataclass(frozen=True)
class Files:
    """JPEGs to decode repeatedly; other files may be written to ``folder``."""

    folder: Path
    paths: list[Path]

    def manifest(self, rows: int = ROWS) -> Manifest:
        """Make a manifest of one class in which the files repeat."""
        names = [str(self.paths[number % len(self.paths)]) for number in range(rows)]
        table = pd.DataFrame({"image": names, "label": "a", "domain": "P", "group": names, "split": "train"})
        return Manifest(table, self.folder)


@dataclass(frozen=True)
class Collection:
    """The files of one cell: ``files`` images rendered in ``shape``, or the user's own from the folder ``images``."""

    shape: str
    images: str
    files: int

    @property
    def title(self) -> str:
        return self.shape or Path(self.images).name

    @contextmanager
    def open(self) -> Iterator[Files]:
        """Yield the files; rendered ones are in a temporary folder, which is removed afterwards."""
        with TemporaryDirectory() as folder:
            paths = render(Path(folder), self.shape, self.files) if self.shape else find(Path(self.images), self.files)
            yield Files(Path(folder), paths)


def collections(options: SimpleNamespace, shapes: tuple[str, ...]) -> list[Collection]:
    """Return the collections that the options ask for.

    Raises:
        InputError: a shape is not WIDTHxHEIGHT, or the folder has no JPEG.
    """
    if options.images is not None:
        find(options.images, 1)
        return [Collection("", str(options.images), options.files)]
    for shape in options.shape:
        _size_of(shape)
    return [Collection(shape, "", options.files) for shape in options.shape or shapes]


def find(images: Path, count: int) -> list[Path]:
    """Return at most ``count`` of the user's own JPEGs, spread evenly over the folder."""
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        raise InputError(f"no .jpg or .jpeg file is in {images}; name a folder that has some")
    return paths[:: max(1, len(paths) // count)][:count]


def render(folder: Path, shape: str, count: int) -> list[Path]:
    """Render JPEGs of quality 92 with the noise of a camera: about 0.2 bytes per pixel, as from real cameras."""
    rng, (width, height) = np.random.default_rng(0), _size_of(shape)
    paths = [folder / f"{shape}-{number:04d}.jpg" for number in range(count)]
    contents: list[bytes] = []
    for number, path in enumerate(paths):
        if number < DISTINCT:
            contents.append(_picture(rng, width, height))
        path.write_bytes(contents[number % DISTINCT])
    return paths


def _size_of(shape: str) -> tuple[int, int]:
    width, _, height = shape.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 16):
        raise InputError(f"shape is {shape!r}; give WIDTHxHEIGHT of at least 16 pixels, such as 1024x768")
    return int(width), int(height)


def _picture(rng: np.random.Generator, width: int, height: int) -> bytes:
    coarse = Image.fromarray(rng.integers(60, 220, (9, 12, 3)).astype(np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    # A sensor has one colour per pixel and interpolates the others, so its noise has grains of two pixels.
    grains = Image.fromarray(rng.normal(0, 6, (height // 2, width // 2)).astype(np.float32))
    pixels += np.asarray(grains.resize((width, height), Image.Resampling.BICUBIC))[..., None]
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
    return stream.getvalue()
