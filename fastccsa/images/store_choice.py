"""Opening the store of the backend that makes the crops of a loader, which depends on whether DALI can be used."""

from __future__ import annotations

from pathlib import Path

import torch

from fastccsa.images.backend import DaliError, dali_is_installed, say_once
from fastccsa.images.source import ImageSource
from fastccsa.images.store import MAKERS, Store, open_complete_store, open_store
from fastccsa.images.transforms import Transforms


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
