"""Loads the compiled op library.

``csrc/library.cpp`` declares the signatures of the ops; their kernels are in ``csrc/<op>/``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastccsa.system.errors import InputError
from fastccsa.system.native import library_path

__all__ = ["accumulation_dtype", "as_weight", "in_accumulation_dtype"]


torch.ops.load_library(str(library_path(__file__, "libfastccsa.so")))


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which sums over tensors of ``dtype`` are accumulated: float64 for float64, else float32."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def in_accumulation_dtype(name: str, weight: Any, inputs: Tensor) -> Tensor | None:
    """Return a weight in the dtype in which sums over ``inputs`` are accumulated, as the ops require; or None.

    Args:
        name: its name in the message.
        weight: a tensor, a list or an array, which goes to the device of ``inputs``; or None.
        inputs: logits or features.

    Raises:
        InputError: not a tensor, list or array of real numbers.
    """
    if weight is None:
        return None
    dtype = accumulation_dtype(inputs.dtype)
    if isinstance(weight, Tensor):
        if weight.dtype is dtype:
            return weight  # `to` costs a microsecond even without a change
        if not weight.is_complex():
            return weight.to(dtype)
        raise InputError(f"{name} is {weight.dtype}; weights are real: pass {name}.real")
    return as_weight(name, weight).to(dtype).to(inputs.device)


def as_weight(name: str, weight: Any) -> Tensor:
    """Return a list or an array of any strides and byte order as a new tensor of float64.

    Raises:
        InputError: it does not hold real numbers in rows of one length.
    """
    try:
        return torch.tensor(weight.tolist() if hasattr(weight, "tolist") else weight, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} is {type(weight).__name__} and cannot be read as numbers ({error}); "
            "pass a tensor, a list or an array of numbers"
        ) from None
