"""The interface between the loaders and the backends that make their images, and the choice of one."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Generator, Iterator
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from fastccsa.images.source import EncodedBatch


class Backend(Protocol):
    """Turns encoded images into finished batches."""

    def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, Tensor], None, None]:
        """Yield each batch in order with its finished images, float32 [B, 3, size, size]."""

    def close(self) -> None:
        """Release threads and memory."""


logger = logging.getLogger("fastccsa.images")


def dali_is_installed() -> bool:
    """Return whether DALI can be imported, without importing it, which is slow."""
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except (ModuleNotFoundError, ValueError):  # there is no package nvidia, or it is no package
        return False


def choose_backend(mode: str, device: torch.device) -> str:
    """Return the fastest backend for ``mode`` and ``device`` among those installed."""
    if mode == "fused" and device.type == "cpu":
        return "native"
    if dali_is_installed():
        return "dali"
    chosen = "native" if mode == "fused" else "torchvision"
    _say_once(f"DALI is not installed: images are decoded on the CPU by {_NAMES[chosen]}")
    return chosen


_NAMES = {"native": "fastccsa's own decoder", "torchvision": "torchvision"}


def choose_crop_backend(backend: str, has_crops_of_dali: bool) -> str:
    """Return the backend that makes the crops of a store, if the loader's is ``backend``.

    Args:
        backend: a loader's backend.
        has_crops_of_dali: whether there is already a store that DALI made, which can be used without DALI.
    """
    if backend == "torchvision":
        return "torchvision"
    if backend == "dali" or has_crops_of_dali or dali_is_installed():
        return "dali"
    _say_once("DALI is not installed: the crops of the images are made by torchvision")
    return "torchvision"


@cache
def _say_once(message: str) -> None:
    logger.warning(message)
