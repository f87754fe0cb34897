from __future__ import annotations

import itertools
import logging
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import assert_same, texture

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, Transforms, decode
from fastccsa.images.source import ImageSource
from fastccsa.images.transforms import Views
from fastccsa.sampling import ImageSampler
from fastccsa.system.errors import InputError

BACKENDS = ["native", "dali", "torchvision"]


def image_loader(manifest: Manifest, **options: Any) -> ImageLoader:
    sampler = ImageSampler(manifest.labels, num_classes=3, batch_size=4, seed=3, shuffle=False)
    options = {"transforms": Transforms(32), "num_threads": 2, **options}
    return ImageLoader(manifest, sampler, augment=True, **options)


def truncate(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:700])


def damage_png(path: str) -> None:
    """Write a PNG with intact chunks but corrupt pixel data."""
    texture(60, 90, seed=0).save(path, format="PNG")
    content = bytearray(Path(path).read_bytes())
    start = content.index(b"IDAT") + 4
    content[start + 2000 : start + 2400] = bytes(400)
    Path(path).write_bytes(content)


def hide_a_frame(path: str) -> None:
    """Hide a header of another size in a segment of a marker without a length, where decoders disagree about it."""
    content = Path(path).read_bytes()
    start = content.index(b"\xff\xc0")
    (length,) = struct.unpack_from(">H", content, start + 2)
    frame = bytearray(content[start : start + 2 + length])
    struct.pack_into(">HH", frame, 5, 2000, 2000)
    hidden = b"\xff\xd0" + struct.pack(">H", 2 + len(frame)) + frame
    end = start + 2 + length
    Path(path).write_bytes(content[:end] + hidden + content[end:])


BREAKAGES = {
    "vanished": lambda path: Path(path).unlink(),
    "empty": lambda path: Path(path).write_bytes(b""),
    "truncated": truncate,
    "no image": lambda path: Path(path).write_text("moved to another server"),
    "damaged": damage_png,
    "hidden frame": hide_a_frame,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("when", ["before", "between epochs"])
def test_a_broken_image_is_replaced_and_the_others_are_unchanged(
    own_manifest: Manifest, backend: str, breakage: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    with image_loader(own_manifest, backend=backend) as loader:
        intact = list(loader.epoch(0))
        path = own_manifest.paths[5]
        if when == "between epochs":
            BREAKAGES[breakage](path)
            batches = list(loader.epoch(0))
    if when == "before":
        BREAKAGES[breakage](path)
        loader = image_loader(own_manifest, backend=backend)
        batches = list(loader.epoch(0))
        loader.close()

    # 5, 11 and 17 have the same class and domain: 11 replaces 5, and its index is reported.
    shown = torch.cat([batch["index"] for batch in batches]).tolist()
    assert shown == [*range(5), 11, *range(6, 22)]
    assert torch.cat([batch["target"] for batch in batches]).tolist() == own_manifest.labels.tolist()
    made, expected = (torch.cat([batch["images"] for batch in run]) for run in (batches, intact))
    others = [row for row in range(22) if row != 5]
    assert torch.equal(made[others], expected[others])
    assert list(loader.broken) == [path]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum(path in warning for warning in warnings) == 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("breakage", ["truncated", "damaged"])
def test_on_error_raise_stops_and_names_the_file(own_manifest: Manifest, backend: str, breakage: str) -> None:
    with image_loader(own_manifest, backend=backend, on_error="raise") as loader:
        path = own_manifest.paths[5]
        intact = list(loader.epoch(0))
        BREAKAGES[breakage](path)
        batches = loader.epoch(0)
        with pytest.raises(InputError, match=r"image05.jpg: .*on_error='replace'"):
            list(batches)
        assert_same(loader.epoch(0, start_step=2), intact[2:])  # the loader still works


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_broken_images_are_replaced(own_manifest: Manifest, backend: str) -> None:
    """Several broken images in a batch, entire batches, and broken replacements."""
    broken = [0, 1, 2, 3, 5, 11, 17, 20, 21]
    for number in broken:
        damage_png(own_manifest.paths[number])
    with image_loader(own_manifest, backend=backend) as loader:
        first, second = list(loader.epoch(0)), list(loader.epoch(0))
    assert_same(first, second)
    assert set(loader.broken) == {own_manifest.paths[number] for number in broken}
    shown = torch.cat([batch["index"] for batch in first]).tolist()
    assert not set(shown) & set(broken)
    # Class c has the groups 2, 8, 14, 20 and 5, 11, 17. The latter has no valid image left, so the class replaces it.
    assert shown[2] == 8
    assert shown[20] == 8
    assert [shown[5], shown[11], shown[17]] == [8, 14, 8]


def test_replacements_do_not_depend_on_the_order_of_discovery(own_manifest: Manifest) -> None:
    for number in (5, 11, 17, 20):  # each is the replacement of another
        damage_png(own_manifest.paths[number])
    dummy = Views(np.zeros((1, 4), int), np.zeros((1, 2), bool), np.zeros(1, int), np.zeros((1, 4), int))
    for order in itertools.permutations([5, 11, 17, 20]):
        source = ImageSource(own_manifest.paths, own_manifest.labels, own_manifest.domain_indices)
        shown = {}
        for number in order:
            batch = source.read(np.array([number]), dummy)
            while source.replace_broken(batch):
                pass
            shown[number] = int(batch.indices[0])
        assert shown == {5: 8, 11: 14, 17: 2, 20: 2}


def test_replacements_match_the_class_before_the_domain(own_manifest: Manifest) -> None:
    for number in (5, 11, 17, 2, 8, 14, 20):  # all images of the class
        truncate(own_manifest.paths[number])
    with image_loader(own_manifest) as loader:
        shown = torch.cat([batch["index"] for batch in loader.epoch(0)]).tolist()
    assert [shown[5], shown[17]] == [9, 21]  # the next of the same domain
    assert shown[2] == 6


@pytest.mark.parametrize("breakage", ["vanished", "truncated"])
def test_no_valid_image_is_an_error(own_manifest: Manifest, breakage: str) -> None:
    for path in own_manifest.paths:
        BREAKAGES[breakage](path)
    with pytest.raises(InputError, match=r"none of the"), image_loader(own_manifest) as loader:
        list(loader.epoch(0))


def test_missing_files_are_found_before_loading(own_manifest: Manifest, caplog: pytest.LogCaptureFixture) -> None:
    for path in own_manifest.paths[:15]:
        Path(path).unlink()
    with image_loader(own_manifest) as loader:
        assert len(loader.broken) == 15
    assert sum("image" in record.getMessage() for record in caplog.records) == 11
    assert "5 more image files are missing" in caplog.text
    with pytest.raises(InputError, match=r"image00.jpg: No such file"):
        image_loader(own_manifest, on_error="raise")


def test_a_manifest_without_images_is_an_error() -> None:
    with pytest.raises(InputError, match="no images to load"):
        ImageSource([], [], [])


def test_images_that_only_pillow_can_decode_are_shown(
    own_manifest: Manifest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    picture = Image.open(own_manifest.paths[5]).convert("RGB")
    picture.save(own_manifest.paths[5], format="GIF")
    with image_loader(own_manifest) as loader:
        expected = list(loader.epoch(0))
    monkeypatch.setattr(decode, "_DALI_FORMATS", decode._DALI_FORMATS | {"GIF"})  # passes it to DALI unconverted
    with image_loader(own_manifest) as loader:
        assert_same(loader.epoch(0), expected)
        assert_same(loader.epoch(0), expected)
        assert loader.broken == {}
    assert not caplog.records
