"""Small collections on disk, in the layouts of the published ones."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImage = Callable[..., Path]


@pytest.fixture
def write_image() -> WriteImage:
    """Write an image in the format of its extension; the picture depends on the name, or on ``look`` if given."""

    def write(path: Path, look: str | None = None, **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(zlib.crc32((look or path.name).encode())).integers(0, 256, (16, 16, 3))
        picture = Image.fromarray(pixels.astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
        kind = Image.registered_extensions().get(path.suffix.lower(), "JPEG")
        picture.save(path, format=kind, **options)
        return path

    return write


@pytest.fixture
def ham10000(write_image: WriteImage) -> Callable[..., Path]:
    """Build HAM10000 from rows (lesion_id, image_id, dx), as published by Harvard Dataverse."""

    def build(folder: Path, rows: Iterable[tuple[str, str, str]]) -> Path:
        lines = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"]
        for number, (lesion, image, dx) in enumerate(rows):
            part = "HAM10000_images_part_1" if number % 2 == 0 else "HAM10000_images_part_2"
            write_image(folder / part / f"{image}.jpg")
            lines.append(f"{lesion},{image},{dx},histo,80.0,male,scalp,vidir_modern")
        (folder / "HAM10000_metadata").write_text("\n".join(lines) + "\n")
        return folder

    return build


@pytest.fixture
def isic_cli(write_image: WriteImage) -> Callable[..., Path]:
    """Build a collection from rows (isic_id, diagnosis), as downloaded by isic-cli."""

    def build(folder: Path, rows: Iterable[tuple[str, str]]) -> Path:
        lines = ["isic_id,attribution,copyright_license,diagnosis,image_type"]
        for image, diagnosis in rows:
            write_image(folder / f"{image}.jpg")
            lines.append(f"{image},Anonymous,CC-0,{diagnosis},dermoscopic")
        (folder / "metadata.csv").write_text("\r\n".join(lines) + "\r\n")
        return folder

    return build
