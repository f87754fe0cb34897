"""Which store a loader uses: in which folder, and of which backend, which depends on whether DALI can be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from fastccsa.images.backend import DaliError, dali_is_installed, say_once
from fastccsa.images.source import ImageSource
from fastccsa.images.store import MAKERS, Store, can_add_crops, has_crops, open_complete_store, open_store
from fastccsa.images.transforms import Transforms

FOLDER = ".fastccsa-cache"


def makers_of(backend: str) -> tuple[str, ...]:
    """Return the backends whose stores a loader with ``backend`` may use.

    Crops are added to the last one's; another one's must be complete.
    """
    if backend in MAKERS:
        return (backend,)
    return ("dali",) if dali_is_installed() else MAKERS


def default_folder(manifest_folder: Path, paths: Sequence[str], transforms: Transforms, backend: str) -> Path:
    """Return the default folder for the store of some images.

    It is next to the manifest or, if a crop is missing there and this user cannot add it, in the user's cache.

    Args:
        manifest_folder: the folder of the manifest.
        paths: the images.
        transforms: provides the sizes.
        backend: the loader's backend.
    """
    near, makers = manifest_folder / FOLDER, makers_of(backend)
    if can_add_crops(transforms, near, makers[-1]) or any(has_crops(paths, transforms, near, each) for each in makers):
        return near
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # the user has no home
        return near
    return Path(cache) / "fastccsa"


def open_store_of(
    backend: str,
    source: ImageSource,
    transforms: Transforms,
    folder: Path,
    num_threads: int | None = None,
    verify: bool = False,
    device: torch.device | None = None,
) -> tuple[str, Store]:
    """Open the store of a loader's images, after adding missing crops.

    "dali" and "torchvision" make the crops themselves. For other backends DALI does; if it cannot, its store is used
    only if no crop is missing, and otherwise torchvision makes the crops, as a warning says.

    Args:
        backend: the loader's backend.

    Other args, and errors: as for `open_store`.

    Returns:
        The backend that made the crops, "dali" or "torchvision", and the store.
    """
    if backend in MAKERS:
        return backend, open_store(source, transforms, folder, backend, num_threads, verify, device)
    if dali_is_installed():
        try:
            return "dali", open_store(source, transforms, folder, "dali", num_threads, verify, device)
        except DaliError as error:
            problem = error.problem
    else:
        store = open_complete_store(source, transforms, folder, "dali", verify)
        if store is not None:
            return "dali", store
        problem = "DALI is not installed"
    say_once(f"{problem}: the crops of the images are made by torchvision")
    return "torchvision", open_store(source, transforms, folder, "torchvision", num_threads, verify, device)
