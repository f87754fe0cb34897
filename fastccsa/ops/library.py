"""Loads the compiled op library.

``csrc/library.cpp`` declares the signatures of the ops; their kernels are in ``csrc/<op>/``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

__all__ = ["accumulation_dtype", "in_accumulation_dtype", "library_path"]


def library_path() -> Path:
    """Return the path of the compiled ops, whether or not they have been built."""
    return Path(__file__).with_name("libfastccsa.so")


def _load() -> None:
    path = library_path()
    if not path.exists():
        raise ImportError(
            f"fastccsa's compiled ops are not there ({path}): run `pip install .`, and start Python outside the "
            "checkout, whose folder fastccsa/ takes precedence over the installed package"
        )
    torch.ops.load_library(str(path))


_load()


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums over tensors of ``dtype`` are accumulated: float64 for float64, else float32."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def in_accumulation_dtype(weight: Tensor | None, inputs: Tensor) -> Tensor | None:
    """Return ``weight`` in the dtype in which sums over ``inputs`` are accumulated, as the ops require; or None."""
    if weight is None:
        return None
    dtype = accumulation_dtype(inputs.dtype)
    return weight if weight.dtype is dtype else weight.to(dtype)  # `to` costs a microsecond even without a change
