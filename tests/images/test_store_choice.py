"""In which folder the store of a loader's images is: next to the manifest, or in the user's cache."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fastccsa.collections.manifest import Manifest
from fastccsa.images import Transforms, store_choice
from fastccsa.images.crop_file import CacheError
from fastccsa.images.source import ImageSource
from fastccsa.images.store import Store, can_add_crops, open_complete_store, open_store
from fastccsa.images.store_choice import FOLDER, default_folder

SMALL = Transforms(32)


def source_of(manifest: Manifest) -> ImageSource:
    return ImageSource(manifest.paths, manifest.labels, manifest.domain_indices)


def make(manifest: Manifest, folder: Path) -> Store:
    return open_store(source_of(manifest), SMALL, folder, "torchvision", num_threads=1)


@pytest.fixture
def deny(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes paths belong to another user: this one may only read them."""

    def only_read(*paths: Path) -> None:
        access = os.access
        monkeypatch.setattr(
            os, "access", lambda path, mode: not mode & os.W_OK if path in paths else access(path, mode)
        )

    return only_read


def test_the_default_folder_of_stores(
    own_manifest: Manifest, deny: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> Path:
        return default_folder(own_manifest.folder, own_manifest.paths, SMALL, "torchvision")

    near = own_manifest.folder / FOLDER
    assert found() == near
    deny(own_manifest.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert found() == Path("/somewhere/fastccsa")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert found() == Path.home() / ".cache/fastccsa"
    near.mkdir()
    assert found() == near  # which can be written itself

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    deny(near)
    monkeypatch.setattr(Path, "home", no_home)
    assert found() == near


@pytest.mark.parametrize("foreign", ["the folder", "a store", "the crops"])
def test_a_store_of_another_user_is_used_if_it_is_complete(
    own_manifest: Manifest, deny: Callable[..., None], monkeypatch: pytest.MonkeyPatch, foreign: str
) -> None:
    near, own = own_manifest.folder / FOLDER, Path("/somewhere/fastccsa")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    first = own_manifest.take([0, 1])
    made = make(first, near)
    store, array = made.array.path.parent, made.array.path
    deny(*{"the folder": (near, store, array), "a store": (store,), "the crops": (array,)}[foreign])

    def found(paths: list[str], backend: str, size: int = SMALL.size) -> Path:
        return default_folder(own_manifest.folder, paths, Transforms(size), backend)

    assert found(first.paths, "torchvision") == near
    assert found(own_manifest.paths, "torchvision") == own
    assert found(first.paths, "torchvision", size=57) == (own if foreign == "the folder" else near)
    monkeypatch.setattr(store_choice, "dali_is_installed", lambda: False)
    assert found(first.paths, "auto") == near
    assert found(own_manifest.paths, "auto") == own
    monkeypatch.setattr(store_choice, "dali_is_installed", lambda: True)
    assert found(first.paths, "auto") == (own if foreign == "the folder" else near)
    os.utime(first.paths[0], (1, 1))  # the file may have changed
    assert found(first.paths, "torchvision") == own


def test_crops_cannot_be_added_to_a_store_that_can_only_be_read(
    own_manifest: Manifest, tmp_path: Path, deny: Callable[..., None]
) -> None:
    assert can_add_crops(SMALL, tmp_path / "new" / "cache", "torchvision")
    (tmp_path / "file").write_text("")
    assert not can_add_crops(SMALL, tmp_path / "file", "torchvision")
    first = make(own_manifest.take([0, 1]), tmp_path / "cache")
    first.array.close()
    deny(first.array.path.parent)
    make(own_manifest.take([1]), tmp_path / "cache").array.close()
    with pytest.raises(CacheError, match=r"cannot be written \(Permission denied\)"):
        make(own_manifest, tmp_path / "cache")


def test_a_folder_that_cannot_be_looked_into_has_no_complete_store(
    own_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> bool:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "exists", denied)
    assert open_complete_store(source_of(own_manifest), SMALL, tmp_path / "cache", "torchvision") is None
