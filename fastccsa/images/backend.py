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
from fastccsa.system.errors import InputError


class Backend(Protocol):
    """Turns encoded images into finished batches."""

    def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, Tensor], None, None]:
        """Yield each batch in order with its finished images, float32 [B, 3, size, size]."""

    def close(self) -> None:
        """Release threads and memory."""


class DaliError(InputError):
    """DALI is not installed, cannot be imported, or fails on images that are not broken.

    Attributes:
        problem: the message without the advice.

    Args:
        problem: what is wrong, and why.
        advice: what to do about it.
    """

    def __init__(self, problem: str, advice: str) -> None:
        super().__init__(f"{problem}: {advice}")
        self.problem = problem


logger = logging.getLogger("fastccsa.images")


def dali_is_installed() -> bool:
    """Return whether DALI is installed, without importing it, which is slow and may fail."""
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
    chosen = backend_without_dali(mode)
    say_once(f"DALI is not installed: images are decoded on the CPU by {NAMES[chosen]}")
    return chosen


def backend_without_dali(mode: str) -> str:
    """Return the fastest backend for ``mode`` that works everywhere."""
    return "native" if mode == "fused" else "torchvision"


NAMES = {"native": "fastccsa's own decoder", "torchvision": "torchvision"}


@cache
def say_once(message: str) -> None:
    """Log a warning, unless this process has done so before, or since `say_again`: a run has several loaders."""
    logger.warning(message)


def say_again() -> None:
    """Let `say_once` log every warning once more, for another run, which may have another log."""
    say_once.cache_clear()
