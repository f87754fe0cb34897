"""Images of all number types and formats look the same with every backend: as numpy says that they look."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, features
from sample_images import grey_levels, texture

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, Transforms, decode
from fastccsa.images.torchvision_backend import exact, normalise
from fastccsa.sampling import ImageSampler

SMALL = Transforms(32)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "native": {"backend": "native"},
    "dali": {"backend": "dali"},
    "torchvision": {"backend": "torchvision"},
    "disk": {"cache": "disk"},
    "disk, torchvision": {"cache": "disk", "backend": "torchvision"},
}

COLOURS = np.asarray(texture(90, 120, seed=1, noise=3))
GREY = COLOURS.mean(axis=2)  # not whole numbers
FLAT = COLOURS // 64 * 64  # at most 64 colours
ALPHA = np.linspace(0, 255, 90 * 120).reshape(90, 120).round().astype(np.uint8)
ON_WHITE = COLOURS * (ALPHA[..., None] / 255) + 255 - ALPHA[..., None]


def colours_of_grey(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def save(values: np.ndarray, kind: str, **options: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(values).save(path, kind, **options)


def palette(path: Path, **options: Any) -> None:
    Image.fromarray(FLAT).quantize(64).save(path, "PNG", **options)


def float_colours(path: Path) -> None:
    import tifffile

    tifffile.imwrite(path, (COLOURS / 255).astype(np.float32), photometric="rgb")


def heic(path: Path) -> None:
    import pillow_heif

    pillow_heif.from_pillow(Image.fromarray(COLOURS)).save(path, quality=-1, chroma=444)


def dicom(path: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = "1.2.3"
    made.Rows, made.Columns, made.SamplesPerPixel, made.PhotometricInterpretation = 90, 120, 1, "MONOCHROME1"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.WindowCenter, made.WindowWidth = 2048, 4096
    made.PixelData = (4095 - GREY / 255 * 4095).round().astype(np.uint16).tobytes()
    made.save_as(path, enforce_file_format=True)


# How a file is written, and what it shows.
FILES: dict[str, tuple[Callable[[Path], None], np.ndarray]] = {
    "float32 from 0 to 1": (save((GREY / 255).astype(np.float32), "TIFF"), colours_of_grey(GREY)),
    "float32 from 0 to 255": (save(GREY.astype(np.float32), "TIFF"), colours_of_grey(GREY)),
    "uint16 TIFF": (save((GREY * 257).round().astype(np.uint16), "TIFF"), colours_of_grey(GREY)),
    "uint16 of 12 bits": (save((GREY * 16).round().astype(np.uint16), "PNG"), colours_of_grey(GREY * 16 / 4095 * 255)),
    "int32 from 0 to 255": (save(GREY.round().astype(np.int32), "TIFF"), colours_of_grey(GREY.round())),
    "int32 from 0 to 65535": (save((GREY * 257).round().astype(np.int32), "TIFF"), colours_of_grey(GREY)),
    "float colours": (float_colours, COLOURS),
    "alpha, PNG": (save(np.dstack([COLOURS, ALPHA]), "PNG"), ON_WHITE),
    "alpha, TIFF": (save(np.dstack([COLOURS, ALPHA]), "TIFF"), ON_WHITE),
    "alpha, WebP": (save(np.dstack([COLOURS, ALPHA]), "WEBP", lossless=True, exact=True), ON_WHITE),
    "palette": (palette, np.asarray(Image.fromarray(FLAT).quantize(64).convert("RGB"))),
    "TGA": (save(COLOURS, "TGA"), COLOURS),
    "JPEG 2000": (save(COLOURS, "JPEG2000"), COLOURS),
    "AVIF": (save(COLOURS, "AVIF", quality=100, subsampling="4:4:4"), COLOURS),
    "HEIC": (heic, COLOURS),
    "DICOM": (dicom, colours_of_grey(GREY)),
}
FEATURES = {"JPEG 2000": "jpg_2000", "AVIF": "avif", "alpha, WebP": "webp"}  # of Pillow
MODULES = {"float colours": "tifffile", "HEIC": "pillow_heif", "DICOM": "pydicom"}


def can_be_read(name: str) -> bool:
    if name in MODULES:
        return importlib.util.find_spec(MODULES[name]) is not None
    return name not in FEATURES or features.check(FEATURES[name])


def evaluated(picture: np.ndarray) -> torch.Tensor:
    """Return the grey levels of the evaluation image of a picture with any real values, [3, size, size]."""
    image = Image.fromarray(np.clip(picture.round(), 0, 255).astype(np.uint8))
    return grey_levels(normalise(exact(image, SMALL, SMALL.evaluation(1), 0), SMALL), SMALL)


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
@pytest.mark.parametrize("size", ["small", "large"])
def test_every_type_looks_the_same_with_every_backend(
    configuration: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if size == "large":  # such images are decoded later
        monkeypatch.setattr(decode, "_LARGE", 100)
    shown = {name: file for name, file in FILES.items() if can_be_read(name)}
    for number, (write, _) in enumerate(shown.values()):
        write(tmp_path / f"{number}.jpg")
    names = [f"{number}.jpg" for number in range(len(shown))]
    table = pd.DataFrame({"image": names, "label": "a", "domain": "P", "group": names, "split": "train"})
    manifest = Manifest(table, tmp_path)
    sampler = ImageSampler(manifest.labels, num_classes=1, batch_size=4, shuffle=False)
    options = {"transforms": SMALL, "num_threads": 2, "cache_dir": tmp_path / "cache", **CONFIGURATIONS[configuration]}
    with ImageLoader(manifest, sampler, False, **options) as loader:
        images = torch.cat([batch["images"] for batch in loader.epoch(0)])
        assert loader.broken == {}
    for name, image, (_, picture) in zip(shown, images, shown.values(), strict=True):
        difference = (grey_levels(image, SMALL) - evaluated(picture)).abs()
        # 1 for resampling, and 1 for the file; 3 where it stores YCbCr.
        assert difference.max() < (4.01 if name in ("AVIF", "HEIC") else 2.01), name
        assert difference.mean() < 1, name


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_fifo_or_an_endless_file_costs_itself(configuration: str, tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "0.jpg", "PNG")
    os.mkfifo(tmp_path / "1.jpg")
    (tmp_path / "2.jpg").symlink_to("/dev/zero")
    with open(tmp_path / "3.jpg", "wb") as file:
        file.truncate(2**40)
    (tmp_path / "4.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    names = [f"{number}.jpg" for number in range(6)]
    Image.fromarray(COLOURS).save(tmp_path / "5.jpg", "PNG")
    table = pd.DataFrame({"image": names, "label": "a", "domain": "P", "group": names, "split": "train"})
    manifest = Manifest(table, tmp_path)
    sampler = ImageSampler(manifest.labels, num_classes=1, batch_size=4, shuffle=False)
    options = {"transforms": SMALL, "num_threads": 2, "cache_dir": tmp_path / "cache", **CONFIGURATIONS[configuration]}
    with ImageLoader(manifest, sampler, False, **options) as loader:
        if "cache" not in options:  # during the run, another file becomes a FIFO
            (tmp_path / "5.jpg").unlink()
            os.mkfifo(tmp_path / "5.jpg")
        shown = torch.cat([batch["index"] for batch in loader.epoch(0)]).tolist()
        broken = {Path(path).name for path in loader.broken}
    if "cache" in options:
        assert shown == [0, 5, 5, 5, 5, 5]
        assert broken == {"1.jpg", "2.jpg", "3.jpg", "4.jpg"}
    else:
        assert shown == [0] * 6
        assert broken == set(names[1:])


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_a_large_image_that_is_broken_is_replaced(
    configuration: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode, "_LARGE", 100)
    for name in ("0.tif", "1.tif", "2.tif"):
        Image.fromarray(COLOURS).save(tmp_path / name, compression="tiff_lzw")
    intact = (tmp_path / "1.tif").read_bytes()
    (tmp_path / "1.tif").write_bytes(intact[:1000] + bytes(500) + intact[1500:])
    names = ["0.tif", "1.tif", "2.tif"]
    table = pd.DataFrame({"image": names, "label": "a", "domain": "P", "group": names, "split": "train"})
    sampler = ImageSampler(np.zeros(3, np.int64), num_classes=1, batch_size=4, shuffle=False)
    options = {"transforms": SMALL, "num_threads": 2, "cache_dir": tmp_path / "cache", **CONFIGURATIONS[configuration]}
    with ImageLoader(Manifest(table, tmp_path), sampler, False, **options) as loader:
        (batch,) = loader.epoch(0)
        assert [Path(path).name for path in loader.broken] == ["1.tif"]
    assert batch["index"].tolist() == [0, 2, 2]
    assert torch.equal(batch["images"][0], batch["images"][1])
