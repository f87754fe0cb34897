"""Loaders with a cache: the streaming path's views of the same images, without decoding."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pipeline_images import assert_same, grey_levels

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
def test_images_are_the_literal_composition_of_the_streams_parameters(
    manifest: Manifest, folder: Path, cache: str, size: int
) -> None:
    """The parity table: through the store, against decoding and torchvision's steps, in grey levels."""
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
        assert difference.max() < 2.01  # 1 of the crop's rounding (DALI), 1 of Pillow's two passes


@pytest.mark.parametrize("cache", CACHES)
def test_batches_are_the_streaming_loaders(manifest: Manifest, folder: Path, cache: str) -> None:
    with pair_loader(manifest, None, None, mode="exact") as loader:
        streamed = list(loader.epoch(1))
    with pair_loader(manifest, cache, folder) as loader:
        whole = list(loader.epoch(1))
        assert_same(loader.epoch(1, start_step=4), whole[4:])
        assert not torch.equal(next(loader.epoch(0))["images1"], whole[0]["images1"])
    for here, there in zip(whole, streamed, strict=True):
        assert here.keys() == there.keys()
        for key in here:
            assert (here[key].dtype, here[key].shape) == (there[key].dtype, there[key].shape)
            if key.startswith("images"):
                difference = (grey_levels(here[key].cpu(), SMALL) - grey_levels(there[key], SMALL)).abs()
                assert difference.mean() < 0.5
                assert difference[..., 2:-2, 2:-2].max() < 3.01  # see test_pipeline_parity.py for the border
            else:
                assert torch.equal(here[key].cpu(), there[key])


@pytest.mark.parametrize("cache", CACHES)
def test_evaluation_images_are_the_streams_within_a_grey_level(manifest: Manifest, folder: Path, cache: str) -> None:
    with image_loader(manifest, None, None, mode="exact") as loader:
        streamed = list(loader.epoch(0))
    with image_loader(manifest, cache, folder) as loader:
        evaluated = list(loader.epoch(0))
        assert_same(loader.epoch(1), evaluated)
    assert [len(batch["images"]) for batch in evaluated] == [4, 4, 4, 4, 4, 2]
    for here, there in zip(evaluated, streamed, strict=True):
        assert torch.equal(here["index"].cpu(), there["index"])
        assert torch.equal(here["target"].cpu(), there["target"])
        difference = grey_levels(here["images"].cpu(), SMALL) - grey_levels(there["images"], SMALL)
        assert difference.abs().max() < 1.01


def test_all_caches_make_the_same_images(manifest: Manifest, folder: Path) -> None:
    with pair_loader(manifest, "disk", folder) as disk, pair_loader(manifest, "ram", folder) as ram:
        assert_same(disk.epoch(0), ram.epoch(0))
    part = manifest.take([20, 3, 8, 11, 2, 5])
    with (
        image_loader(part, "disk", folder, augment=True) as disk,
        image_loader(part, "ram", folder, augment=True) as ram,
    ):
        assert ram._backend._crops.shape[0] == 6  # its own images alone
        assert_same(disk.epoch(0), ram.epoch(0))


def test_the_loop_needs_no_dali(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pair_loader(manifest, "disk", folder) as loader:
        expected = list(loader.epoch(0))
    monkeypatch.setitem(sys.modules, "fastccsa.images.dali", None)
    monkeypatch.setattr("fastccsa.images.source.read_image", lambda path: pytest.fail("an image was read"))
    with pair_loader(manifest, "disk", folder) as loader:
        assert_same(loader.epoch(0), expected)


def test_the_store_lies_beside_the_manifest(own_manifest: Manifest) -> None:
    with pair_loader(own_manifest, "disk", None):
        assert len(list((own_manifest.folder / ".fastccsa-cache").glob("*/crops.bin"))) == 1


@pytest.mark.parametrize("cache", CACHES)
def test_broken_images_are_replaced_as_in_streaming(
    own_manifest: Manifest, tmp_path: Path, cache: str, caplog: pytest.LogCaptureFixture
) -> None:
    cut, empty, gone = (Path(own_manifest.paths[index]) for index in (0, 7, 13))
    cut.write_bytes(cut.read_bytes()[:-800])
    empty.write_bytes(b"")
    gone.unlink()
    with pair_loader(own_manifest, None, None) as loader:
        list(loader.epoch(0))  # finds them all
        streamed, broken = list(loader.epoch(0)), loader.broken
    caplog.clear()
    with caplog.at_level(logging.WARNING), pair_loader(own_manifest, cache, tmp_path / "cache") as loader:
        assert loader.broken == broken
        assert set(broken) == {str(cut), str(empty), str(gone)}
        assert all(path in caplog.text for path in broken)
        for here, there in zip(loader.epoch(0), streamed, strict=True):
            for key in ("index1", "index2", "target1", "target2", "domain1", "domain2"):
                assert torch.equal(here[key].cpu(), there[key])
    with pytest.raises(InputError, match="image"):
        pair_loader(own_manifest, cache, tmp_path / "cache", on_error="raise")


def test_a_file_that_vanishes_while_training_does_no_harm(own_manifest: Manifest, tmp_path: Path) -> None:
    with pair_loader(own_manifest, "disk", tmp_path / "cache") as loader:
        first = list(loader.epoch(0))
        for path in own_manifest.paths:
            Path(path).unlink()
        assert_same(loader.epoch(0), first)


@pytest.mark.parametrize("cache", CACHES)
def test_close_ends_every_thread(manifest: Manifest, folder: Path, cache: str) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    with pair_loader(manifest, cache, folder) as loader:
        list(loader.epoch(0))
    before = threads()
    for _ in range(3):
        with pair_loader(manifest, cache, folder) as loader:
            next(loader.epoch(0))
    for _ in range(100):  # torch's threads end on their own, soon after the one they worked for
        if threads() <= before:
            break
        time.sleep(0.05)
    assert threads() <= before


def test_a_program_that_forgets_to_close_ends(manifest: Manifest, folder: Path) -> None:
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


def test_wrong_arguments_are_named(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cache is 'tape'; give None or one of disk, ram, gpu"):
        pair_loader(manifest, "tape", folder)
    with pytest.raises(InputError, match="cache is 'gpu' and device is cpu; give device='cuda'"):
        pair_loader(manifest, "gpu", folder, device="cpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="torch sees no CUDA device"):
            pair_loader(manifest, "gpu", folder)
    monkeypatch.setattr(machine, "available_bytes", lambda device: 1000)
    with pytest.raises(InputError, match=r"crops of 22 images need 0.0 GB of memory"):
        pair_loader(manifest, "ram", folder)
