"""Without a DALI that works, `auto` goes on with another decoder, and says so once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_images import assert_same

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, Transforms
from fastccsa.images import backend as chosen_backend
from fastccsa.images.backend import DaliError
from fastccsa.images.dali import DaliBackend, DaliCrops
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
        pytest.raises(DaliError, match=r"DALI failed \(out of memory\): load with backend='native'"),
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
