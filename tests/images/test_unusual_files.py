"""Unusual and broken files with every backend and cache: valid files are shown, and broken ones are replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sample_images import grey_levels, texture

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, Transforms
from fastccsa.images.decode import decode
from fastccsa.images.torchvision_backend import exact, normalise
from fastccsa.sampling import ImageSampler
from fastccsa.system.errors import InputError

SMALL = Transforms(32)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "native": {"backend": "native"},
    "DALI": {"backend": "dali"},
    "DALI, exact": {"backend": "dali", "mode": "exact"},
    "torchvision": {"backend": "torchvision"},
    "disk": {"cache": "disk"},
    "ram": {"cache": "ram"},
    "disk, torchvision": {"cache": "disk", "backend": "torchvision"},
}
MAX_PIXELS = 1_000_000  # fewer than the decompression bomb below has

Write = Callable[[Path], object]


def picture(height: int = 90, width: int = 120) -> Image.Image:
    return texture(height, width, seed=1, noise=3)


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(path, "JPEG", quality=95, exif=exif)


def sixteen_bits(path: Path) -> None:
    grey = np.asarray(picture().convert("L")).astype(np.uint16) * 257
    Image.fromarray(grey).save(path, "PNG")


UNUSUAL: dict[str, Write] = {
    "PNG named .jpg": lambda path: picture().save(path, "PNG"),
    "16 bits": sixteen_bits,
    "grey JPEG": lambda path: picture().convert("L").save(path, "JPEG", quality=95),
    "grey PNG": lambda path: picture().convert("L").save(path, "PNG"),
    "CMYK": lambda path: picture().convert("CMYK").save(path, "JPEG", quality=95),
    "progressive": lambda path: picture().save(path, "JPEG", quality=95, progressive=True),
    "EXIF rotation": rotated,
    "GIF": lambda path: picture().save(path, "GIF"),
}


def truncated(path: Path) -> None:
    picture().save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-1200])


BROKEN: dict[str, Write] = {
    "truncated JPEG": truncated,
    "zero bytes": lambda path: path.write_bytes(b""),
    "vanished": lambda path: path.unlink(missing_ok=True),
    "bomb": lambda path: Image.new("1", (4000, 4000)).save(path, "PNG"),
}


def manifest_of(files: dict[str, Write], folder: Path) -> Manifest:
    names = [f"{number}.jpg" for number in range(len(files))]
    for name, write in zip(names, files.values(), strict=True):
        write(folder / name)
    table = pd.DataFrame({"image": names, "label": "a", "domain": "P", "group": names, "split": "train"})
    return Manifest(table, folder)


def load(manifest: Manifest, configuration: str, folder: Path, **options: Any) -> ImageLoader:
    sampler = ImageSampler(manifest.labels, num_classes=1, batch_size=3, shuffle=False)
    options = {"transforms": SMALL, "num_threads": 2, "cache_dir": folder, **CONFIGURATIONS[configuration], **options}
    return ImageLoader(manifest, sampler, options.pop("augment", False), **options)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_unusual_files_are_shown_correctly(configuration: str, tmp_path: Path) -> None:
    manifest = manifest_of(UNUSUAL, tmp_path)
    with load(manifest, configuration, tmp_path / "cache") as loader:
        images = torch.cat([batch["images"] for batch in loader.epoch(0)])
        assert loader.broken == {}
    views = SMALL.evaluation(len(UNUSUAL))
    for row, (name, path) in enumerate(zip(UNUSUAL, manifest.paths, strict=True)):
        expected = normalise(exact(decode(np.fromfile(path, np.uint8)), SMALL, views, row), SMALL)
        difference = (grey_levels(images[row], SMALL) - grey_levels(expected, SMALL)).abs()
        assert difference.max() < 1.01, name


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_broken_files_are_named_and_replaced(
    configuration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS)
    manifest = manifest_of(BROKEN | {"valid": UNUSUAL["grey JPEG"]}, tmp_path)
    with load(manifest, configuration, tmp_path / "cache", augment=True) as loader:
        shown = torch.cat([batch["index"] for batch in loader.epoch(0)])
        assert set(loader.broken) == set(manifest.paths[: len(BROKEN)])
    assert (shown == len(BROKEN)).all()


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("broken", BROKEN)
def test_on_error_raise_stops_and_names_the_file(
    configuration: str, broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", MAX_PIXELS)
    manifest = manifest_of({broken: BROKEN[broken], "valid": UNUSUAL["grey JPEG"]}, tmp_path)

    def load_epoch() -> None:
        with load(manifest, configuration, tmp_path / "cache", on_error="raise") as loader:
            list(loader.epoch(0))

    with pytest.raises(InputError, match=r"0\.jpg"):
        load_epoch()
