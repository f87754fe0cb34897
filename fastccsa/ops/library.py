"""Loads the op library, whose signatures stand in ``csrc/library.cpp`` and whose kernels stand in ``csrc/<op>/``."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["accumulation_dtype", "library_path"]


def library_path() -> Path:
    """Where the compiled ops are."""
    return Path(__file__).with_name("libfastccsa.so")


def _load() -> None:
    path = library_path()
    if not path.exists():
        raise ImportError(
            f"fastccsa's compiled ops are not there ({path}): `pip install .`, and start Python outside the checkout, "
            "whose folder fastccsa/ goes before the installed package"
        )
    torch.ops.load_library(str(path))


_load()


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which sums over tensors of ``dtype`` are kept: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
