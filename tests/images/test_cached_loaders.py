"""Loaders with a cache show the same views of the same images as without, but decode nothing."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_images import assert_same, grey_levels

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, PairLoader, Transforms
from fastccsa.images.decode import decode
from fastccsa.images.torchvision_backend import exact, normalise
from fastccsa.sampling import ImageSampler, PairSampler
from fastccsa.system import machine
from fastccsa.system.errors import InputError

SMALL = Transforms(32)
CACHES = ["disk", "ram", pytest.param("gpu", marks=pytest.mark.cuda)]


def pair_loader(manifest: Manifest, cache: str | None, folder: Path | None, **options: Any) -> PairLoader:
    sampler = PairSampler(manifest.labels, manifest.domain_indices, num_classes=3, batch_size=4, seed=3)
    device = "cuda" if cache == "gpu" else "cpu"
    options = {"transforms": SMALL, "device": device, "num_threads": 2, **options}
    return PairLoader(manifest, sampler, cache=cache, cache_dir=folder, **options)


def image_loader(manifest: Manifest, cache: str | None, folder: Path | None, **options: Any) -> ImageLoader:
    sampler = ImageSampler(manifest.labels, num_classes=3, batch_size=4, seed=3, shuffle=False)
    device = "cuda" if cache == "gpu" else "cpu"
    options = {"transforms": SMALL, "device": device, "num_threads": 2, **options}
    return ImageLoader(manifest, sampler, options.pop("augment", False), cache=cache, cache_dir=folder, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("size", [32, 224])
def test_cached_images_equal_the_literal_composition(manifest: Manifest, folder: Path, cache: str, size: int) -> None:
    """In grey levels, compared with decoding and torchvision's transforms for the same views."""
    transforms = Transforms(size)
    with pair_loader(manifest, cache, folder, transforms=transforms) as loader:
        batch = next(loader.epoch(2))
        positions = loader.sampler.positions(2, 0)
    for stream in (1, 2):
        views = transforms.draw(3, 2, positions, stream)
        paths = [manifest.paths[index] for index in batch[f"index{stream}"].tolist()]
        images = [decode(np.fromfile(path, np.uint8)) for path in paths]
        expected = torch.stack(
            [normalise(exact(image, transforms, views, row), transforms) for row, image in enumerate(images)]
        )
        made, expected = (grey_levels(tensor.cpu(), transforms) for tensor in (batch[f"images{stream}"], expected))
        difference = (made - expected).abs()
        assert difference.mean() < 0.5
        assert difference.max() < 2.01  # 1 for the rounding of the crop (DALI), 1 for Pillow's two passes


@pytest.mark.parametrize("cache", CACHES)
def test_batches_equal_those_without_a_cache(manifest: Manifest, folder: Path, cache: str) -> None:
    with pair_loader(manifest, None, None, mode="exact") as loader:
        streamed = list(loader.epoch(1))
    with pair_loader(manifest, cache, folder) as loader:
        whole = list(loader.epoch(1))
        assert_same(loader.epoch(1, start_step=4), whole[4:])
        assert not torch.equal(next(loader.epoch(0))["images1"], whole[0]["images1"])
    for cached, decoded in zip(whole, streamed, strict=True):
        assert cached.keys() == decoded.keys()
        for key in cached:
            assert (cached[key].dtype, cached[key].shape) == (decoded[key].dtype, decoded[key].shape)
            if key.startswith("images"):
                difference = (grey_levels(cached[key].cpu(), SMALL) - grey_levels(decoded[key], SMALL)).abs()
                assert difference.mean() < 0.5
                assert difference[..., 2:-2, 2:-2].max() < 3.01  # see test_parity.py for the border
            else:
                assert torch.equal(cached[key].cpu(), decoded[key])


@pytest.mark.parametrize("cache", CACHES)
def test_evaluation_images_equal_those_without_a_cache_within_a_grey_level(
    manifest: Manifest, folder: Path, cache: str
) -> None:
    with image_loader(manifest, None, None, mode="exact") as loader:
        streamed = list(loader.epoch(0))
    with image_loader(manifest, cache, folder) as loader:
        evaluated = list(loader.epoch(0))
        assert_same(loader.epoch(1), evaluated)
    assert [len(batch["images"]) for batch in evaluated] == [4, 4, 4, 4, 4, 2]
    for cached, decoded in zip(evaluated, streamed, strict=True):
        assert torch.equal(cached["index"].cpu(), decoded["index"])
        assert torch.equal(cached["target"].cpu(), decoded["target"])
        difference = grey_levels(cached["images"].cpu(), SMALL) - grey_levels(decoded["images"], SMALL)
        assert difference.abs().max() < 1.01


@pytest.mark.parametrize("cache", CACHES)
def test_a_rank_without_images_in_the_last_step_gets_an_empty_batch(
    manifest: Manifest, folder: Path, cache: str
) -> None:
    sampler = ImageSampler(manifest.labels, num_classes=3, batch_size=7, shuffle=False, rank=0, world_size=3)
    options = {"transforms": SMALL, "device": "cuda" if cache == "gpu" else "cpu"}
    with ImageLoader(manifest, sampler, False, cache=cache, cache_dir=folder, **options) as loader:
        batches = list(loader.epoch(0))  # 22 images: 7 for each of three, and one for the third
    assert [tuple(batch["images"].shape) for batch in batches] == [(7, 3, 32, 32), (0, 3, 32, 32)]
    assert [len(batch["target"]) for batch in batches] == [7, 0]


def test_all_caches_make_the_same_images(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pair_loader(manifest, "disk", folder) as disk, pair_loader(manifest, "ram", folder) as ram:
        assert_same(disk.epoch(0), ram.epoch(0))
    subset = manifest.take([20, 3, 8, 11, 2, 5])
    # Memory for the crops of the subset only.
    monkeypatch.setattr(machine, "available_bytes", lambda device: 6 * SMALL.crop**2 * 3)
    with (
        image_loader(subset, "disk", folder, augment=True) as disk,
        image_loader(subset, "ram", folder, augment=True) as ram,
    ):
        assert_same(disk.epoch(0), ram.epoch(0))


def test_a_finished_store_needs_neither_dali_nor_the_images(
    manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pair_loader(manifest, "disk", folder) as loader:
        expected = list(loader.epoch(0))
    monkeypatch.setitem(sys.modules, "fastccsa.images.dali", None)
    monkeypatch.setattr("fastccsa.images.source.read_image", lambda path: pytest.fail("an image was read"))
    with pair_loader(manifest, "disk", folder) as loader:
        assert_same(loader.epoch(0), expected)


@pytest.mark.parametrize("cache", [cache for cache in CACHES if cache != "disk"])
def test_damaged_crops_are_made_again_before_they_are_shown(
    manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture, cache: str
) -> None:
    """Without a new modification time, only the checksums tell of the damage."""
    with image_loader(manifest, cache, tmp_path) as loader:
        expected = list(loader.epoch(0))
    (array,) = tmp_path.glob("*/crops.bin")
    whole, before = array.read_bytes(), array.stat()
    middle = 7 * SMALL.crop**2 * 3 + SMALL.crop**2 * 3 // 2  # a pixel that evaluation shows
    array.write_bytes(whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :])
    os.utime(array, ns=(before.st_atime_ns, before.st_mtime_ns))
    with caplog.at_level(logging.WARNING), image_loader(manifest, cache, tmp_path) as loader:
        assert_same(loader.epoch(0), expected)
    assert f"1 of {len(manifest)} crops are damaged; making them again" in caplog.text
    assert array.read_bytes() == whole


def test_the_store_is_next_to_the_manifest_by_default(own_manifest: Manifest) -> None:
    with pair_loader(own_manifest, "disk", None):
        assert len(list((own_manifest.folder / ".fastccsa-cache").glob("*/crops.bin"))) == 1


@pytest.mark.parametrize("cache", CACHES)
def test_broken_images_are_replaced_as_without_a_cache(
    own_manifest: Manifest, tmp_path: Path, cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    truncated, empty, deleted = (Path(own_manifest.paths[index]) for index in (0, 7, 13))
    truncated.write_bytes(truncated.read_bytes()[:-800])
    empty.write_bytes(b"")
    deleted.unlink()
    with pair_loader(own_manifest, None, None) as loader:
        list(loader.epoch(0))  # finds them all
        streamed, broken = list(loader.epoch(0)), loader.broken
    caplog.clear()
    with caplog.at_level(logging.WARNING), pair_loader(own_manifest, cache, tmp_path / "cache") as loader:
        assert loader.broken == broken
        assert set(broken) == {str(truncated), str(empty), str(deleted)}
        assert all(path in caplog.text for path in broken)
        for cached, decoded in zip(loader.epoch(0), streamed, strict=True):
            for key in ("index1", "index2", "target1", "target2", "domain1", "domain2"):
                assert torch.equal(cached[key].cpu(), decoded[key])
    with pytest.raises(InputError, match="image"):
        pair_loader(own_manifest, cache, tmp_path / "cache", on_error="raise")


def test_files_that_vanish_while_training_are_still_shown(own_manifest: Manifest, tmp_path: Path) -> None:
    with pair_loader(own_manifest, "disk", tmp_path / "cache") as loader:
        first = list(loader.epoch(0))
        for path in own_manifest.paths:
            Path(path).unlink()
        assert_same(loader.epoch(0), first)


@pytest.mark.parametrize("cache", CACHES)
def test_close_stops_all_threads(manifest: Manifest, folder: Path, cache: str) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    with pair_loader(manifest, cache, folder) as loader:
        list(loader.epoch(0))
    before = threads()
    for _ in range(3):
        with pair_loader(manifest, cache, folder) as loader:
            next(loader.epoch(0))
    for _ in range(100):  # torch's worker threads end shortly after the thread that started them
        if threads() <= before:
            break
        time.sleep(0.05)
    assert threads() <= before


def test_a_program_exits_without_closing_its_loader(manifest: Manifest, folder: Path) -> None:
    program = f"""
        from fastccsa.collections.manifest import Manifest
        from fastccsa.images import ImageLoader, Transforms
        from fastccsa.sampling import ImageSampler
        import pandas as pd
        paths = {manifest.paths!r}
        manifest = Manifest(pd.DataFrame(dict(image=paths, label="a", domain="P", group=paths, split="train")))
        sampler = ImageSampler(manifest.labels, batch_size=2)
        loader = ImageLoader(manifest, sampler, True, cache="ram", cache_dir={str(folder)!r}, transforms=Transforms(32))
        print(next(iter(loader))["images"].shape[0])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert "Traceback" not in done.stderr


def test_invalid_arguments_are_reported(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cache is 'tape'; give None or one of disk, ram, gpu"):
        pair_loader(manifest, "tape", folder)
    with pytest.raises(InputError, match="cache is 'gpu' and device is cpu; use --cache ram or a GPU"):
        pair_loader(manifest, "gpu", folder, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch sees no CUDA device"):
            pair_loader(manifest, "gpu", folder)
    monkeypatch.setattr(machine, "available_bytes", lambda device: 1000)
    with pytest.raises(InputError, match=r"crops of 22 images need 0.0 GB of memory"):
        pair_loader(manifest, "ram", folder)


@pytest.mark.parametrize("cache", CACHES)
def test_bfloat16_images_are_float32_images_rounded_once(manifest: Manifest, folder: Path, cache: str) -> None:
    with (
        pair_loader(manifest, cache, folder) as exact_loader,
        pair_loader(manifest, cache, folder, dtype=torch.bfloat16) as loader,
    ):
        for rounded, exact_batch in zip(loader.epoch(1), exact_loader.epoch(1), strict=True):
            for key, value in exact_batch.items():
                expected = value.to(torch.bfloat16) if key.startswith("images") else value
                assert rounded[key].dtype == expected.dtype
                assert torch.equal(rounded[key], expected)
        made = loader.make(next(loader.plans(1)).to(loader.device))
        assert torch.equal(made["images2"], next(loader.epoch(1))["images2"])


def test_the_number_type_of_images_is_validated(manifest: Manifest, folder: Path) -> None:
    with pytest.raises(InputError, match=r"dtype is torch.float16; give torch.float32 or torch.bfloat16"):
        pair_loader(manifest, "ram", folder, dtype=torch.float16)
    with pytest.raises(InputError, match=r"dtype is torch.bfloat16, which needs a cache"):
        pair_loader(manifest, None, None, dtype=torch.bfloat16)
