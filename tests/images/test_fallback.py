"""Without a DALI that works, `auto` goes on with another decoder, and says so once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import assert_same

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, Transforms, decode
from fastccsa.images import backend as chosen_backend
from fastccsa.images import source as source_module
from fastccsa.images.backend import DaliError
from fastccsa.images.dali import DaliBackend, DaliCrops, image_pipeline
from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.sampling import ImageSampler

SMALL = Transforms(32)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log, without what earlier tests have already said."""
    chosen_backend.say_once.cache_clear()
    return caplog


def loader_of(manifest: Manifest, backend: str, **options: Any) -> ImageLoader:
    sampler = ImageSampler(manifest.labels, num_classes=3, batch_size=4, seed=3, shuffle=False)
    return ImageLoader(manifest, sampler, True, transforms=SMALL, num_threads=2, backend=backend, **options)


def batches_of(manifest: Manifest, backend: str, **options: Any) -> list[dict[str, torch.Tensor]]:
    with loader_of(manifest, backend, **options) as loader:
        return list(loader.epoch(0))


@pytest.fixture
def no_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI is not installed."""
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.delitem(sys.modules, "fastccsa.images.dali")


@pytest.fixture
def broken_dali(monkeypatch: pytest.MonkeyPatch) -> None:
    """DALI is installed, but one of its modules cannot be imported."""
    monkeypatch.delitem(sys.modules, "fastccsa.images.dali")
    monkeypatch.setitem(sys.modules, "nvidia.dali.pipeline", None)


def fail_from(monkeypatch: pytest.MonkeyPatch, kind: type[DaliBackend], first: int) -> None:
    """Let DALI fail from batch number ``first`` on, as often as it is tried again."""
    original, finished = kind._outputs, []

    def outputs(self: DaliBackend, batch: Any) -> torch.Tensor:
        if len(finished) == first:
            raise RuntimeError("out of\nmemory")
        finished.append(batch)
        return original(self, batch)

    monkeypatch.setattr(kind, "_outputs", outputs)


@pytest.mark.usefixtures("broken_dali")
def test_images_are_streamed_without_a_dali_that_cannot_be_imported(
    manifest: Manifest, log: pytest.LogCaptureFixture
) -> None:
    expected = batches_of(manifest, "torchvision", mode="exact")
    for _ in range(2):
        with loader_of(manifest, "auto", mode="exact") as loader:
            assert loader.decoder == "torchvision"
            assert_same(loader.epoch(0), expected)
    (warning,) = log.messages
    assert warning.startswith("DALI cannot be imported (")
    assert warning.endswith("): images are decoded on the CPU by torchvision")
    with pytest.raises(DaliError, match=r"DALI cannot be imported .*backend='torchvision'"):
        loader_of(manifest, "dali", mode="exact")


@pytest.mark.usefixtures("broken_dali")
def test_crops_are_made_without_a_dali_that_cannot_be_imported(
    manifest: Manifest, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    expected = batches_of(manifest, "torchvision", cache="ram", cache_dir=tmp_path / "torchvision")
    for _ in range(2):
        with loader_of(manifest, "auto", cache="ram", cache_dir=tmp_path / "auto") as loader:
            assert loader.decoder == "torchvision"
            assert_same(loader.epoch(0), expected)
    (warning,) = log.messages
    assert warning.startswith("DALI cannot be imported (")
    assert warning.endswith("): the crops of the images are made by torchvision")


def test_without_dali_its_store_is_used_only_if_no_crop_is_missing(
    manifest: Manifest, tmp_path: Path, request: pytest.FixtureRequest, log: pytest.LogCaptureFixture
) -> None:
    some = manifest.take(range(21))
    by_dali = batches_of(some, "dali", cache="disk", cache_dir=tmp_path)
    request.getfixturevalue("no_dali")
    with loader_of(some, "auto", cache="disk", cache_dir=tmp_path) as loader:
        assert loader.decoder == "dali"
        assert_same(loader.epoch(0), by_dali)
    assert not log.messages
    with loader_of(manifest, "auto", cache="disk", cache_dir=tmp_path) as loader:
        assert loader.decoder == "torchvision"
        assert_same(loader.epoch(0), batches_of(manifest, "torchvision", cache="disk", cache_dir=tmp_path))
    assert log.messages == ["DALI is not installed: the crops of the images are made by torchvision"]


@pytest.mark.parametrize("first", [0, 2])
def test_a_dali_that_fails_makes_way_for_another_backend(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture, first: int
) -> None:
    """No batch is lost, and none is made twice."""
    by_dali, expected = (batches_of(manifest, backend, mode="exact") for backend in ("dali", "torchvision"))
    fail_from(monkeypatch, DaliBackend, first)
    with loader_of(manifest, "auto", mode="exact") as loader:
        assert loader.decoder == "dali"
        assert_same(loader.epoch(0), by_dali[:first] + expected[first:])
        assert loader.decoder == "torchvision"
        assert_same(loader.epoch(0), expected)
        assert loader.broken == {}
    assert log.messages == ["DALI failed (out of memory): images are decoded on the CPU by torchvision"]


def test_a_dali_that_fails_is_an_error_if_it_was_asked_for(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_from(monkeypatch, DaliBackend, 2)
    with (
        loader_of(manifest, "dali", mode="exact") as loader,
        pytest.raises(DaliError, match=r"DALI failed \(out of memory\): decode with --image-backend auto"),
    ):
        list(loader.epoch(0))


def test_crops_that_dali_fails_on_are_made_by_torchvision(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    expected = batches_of(manifest, "torchvision", cache="ram", cache_dir=tmp_path / "torchvision")
    fail_from(monkeypatch, DaliCrops, 0)
    assert_same(batches_of(manifest, "auto", cache="ram", cache_dir=tmp_path / "auto"), expected)
    assert log.messages == ["DALI failed (out of memory): the crops of the images are made by torchvision"]
    with pytest.raises(DaliError, match="DALI failed"):
        loader_of(manifest, "dali", cache="ram", cache_dir=tmp_path / "dali")


class OnGpu(DaliBackend):
    """DALI on a GPU, played by DALI on the CPU."""

    outputs_of_gpu = DaliBackend._outputs

    def _define(self, **settings: Any) -> Any:
        return image_pipeline(self._transforms, self._exact, "cpu", **{**settings, "device_id": None})

    def _outputs(self, batch: EncodedBatch) -> torch.Tensor:
        if self._device.type == "cpu":
            return super()._outputs(batch)
        own, self._device = self._device, torch.device("cpu")
        try:
            return self.outputs_of_gpu(batch)
        finally:
            self._device = own


def run_on_gpu(kind: type[OnGpu], source: ImageSource) -> torch.Tensor:
    backend = kind(source, SMALL, torch.device("cuda", 0), "exact", batch_size=6, num_threads=1, prefetch=1)
    ((_, images),) = backend.run(iter([source.read(np.arange(6), SMALL.evaluation(6))]))
    return images


def test_a_gpu_that_fails_does_not_turn_images_into_pixels(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory is full: that the files are intact shows DALI on the CPU."""

    class Full(OnGpu):
        def outputs_of_gpu(self, batch: EncodedBatch) -> torch.Tensor:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(source_module, "uncompressed", lambda image: pytest.fail("an image was made into pixels"))
    source = ImageSource(manifest.paths, manifest.labels, manifest.domain_indices)
    with pytest.raises(DaliError, match=r"DALI cannot use cuda:0 \(out of memory\)"):
        run_on_gpu(Full, source)
    assert source.broken == {}


def test_files_that_dali_cannot_decode_are_given_to_the_gpu_as_pixels(
    own_manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.open(own_manifest.paths[4]).save(own_manifest.paths[4], format="GIF")
    collection = own_manifest.paths, own_manifest.labels, own_manifest.domain_indices
    expected = run_on_gpu(OnGpu, ImageSource(*collection))
    monkeypatch.setattr(decode, "_is_common", lambda image, content: True)  # passes it to DALI unconverted
    source = ImageSource(*collection)
    assert torch.equal(run_on_gpu(OnGpu, source), expected)
    assert source.broken == {}
    assert source._uncompressed == set(range(6))


def test_a_broken_file_is_replaced_before_the_gpu_is_suspected(own_manifest: Manifest) -> None:
    path = Path(own_manifest.paths[4])
    Image.open(path).save(path, format="PNG")
    content = bytearray(path.read_bytes())
    start = content.index(b"IDAT") + 4
    content[start + 2000 : start + 2400] = bytes(400)
    path.write_bytes(content)

    class Strict(OnGpu):
        def outputs_of_gpu(self, batch: EncodedBatch) -> torch.Tensor:
            if 4 in batch.indices:
                raise RuntimeError("corrupt JPEG data")
            return super().outputs_of_gpu(batch)

    source = ImageSource(own_manifest.paths, own_manifest.labels, own_manifest.domain_indices)
    run_on_gpu(Strict, source)
    assert list(source.broken) == [str(path)]
