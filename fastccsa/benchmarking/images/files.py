"""The files that the image benchmark decodes: rendered for it, or the user's own."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from fastccsa.collections.manifest import Manifest
from fastccsa.system.errors import InputError

SHAPES = ("600x450", "1024x768", "3000x2000")

_DISTINCT = 8  # rendered images; the other files are copies, decoded all the same
_ROWS = 1 << 14  # of the manifest, so that an epoch lasts


@dataclass(frozen=True)
class Files:
    """JPEGs to decode, over and over.

    Attributes:
        title: what to call them.
        folder: where files may be written beside them.
        paths: the files.
        bits_per_pixel: of the files, on average: how much there is to decode.
    """

    title: str
    folder: Path
    paths: list[Path]
    bits_per_pixel: float

    def manifest(self, rows: int = _ROWS) -> Manifest:
        """A manifest of one class in which the files come again and again."""
        names = [str(self.paths[number % len(self.paths)]) for number in range(rows)]
        table = pd.DataFrame({"image": names, "label": "a", "domain": "P", "group": names, "split": "train"})
        return Manifest(table, self.folder)


def render(folder: Path, shape: str, count: int) -> Files:
    """JPEGs of quality 92 with the noise of a camera: some 0.2 bytes a pixel, as cameras' own.

    A sensor has one colour a pixel and interpolates the others, so its noise has grains of two pixels.

    Raises:
        InputError: the shape is not WIDTHxHEIGHT.
    """
    try:
        width, height = map(int, shape.split("x"))
        if min(width, height) < 16:
            raise ValueError
    except ValueError:
        raise InputError(f"shape is {shape!r}; give WIDTHxHEIGHT of at least 16 pixels, such as 1024x768") from None
    rng = np.random.default_rng(0)
    contents = [_picture(rng, width, height) for _ in range(min(count, _DISTINCT))]
    paths = [folder / f"{shape}-{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(contents[number % len(contents)])
    return _described(shape, folder, paths)


def find(images: Path, count: int, folder: Path) -> Files:
    """The user's own JPEGs.

    Raises:
        InputError: there is none.
    """
    paths = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not paths:
        raise InputError(f"no .jpg or .jpeg file is in {images}; give a folder that has some")
    step = max(1, len(paths) // count)  # from all over the folder
    return _described(images.name, folder, paths[::step][:count])


def _picture(rng: np.random.Generator, width: int, height: int) -> bytes:
    coarse = Image.fromarray(rng.integers(60, 220, (9, 12, 3)).astype(np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
    grains = Image.fromarray(rng.normal(0, 6, (height // 2, width // 2)).astype(np.float32))
    pixels += np.asarray(grains.resize((width, height), Image.Resampling.BICUBIC))[..., None]
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _described(title: str, folder: Path, paths: list[Path]) -> Files:
    size = pixels = 0
    for path in paths:
        with Image.open(path) as image:
            pixels += image.width * image.height
        size += path.stat().st_size
    return Files(title, folder, paths, 8 * size / pixels)
