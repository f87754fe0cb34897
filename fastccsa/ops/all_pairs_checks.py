"""What may be passed to the loss over all pairs; messages as the zipped op's."""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa.ops.library import accumulation_dtype

__all__ = ["check", "check_values"]

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def check(z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, labels: int) -> None:
    """Shapes, dtypes and devices; messages as the zipped op's."""
    if z1.dtype not in _DTYPES:
        raise RuntimeError(f"features1 must be float64, float32, bfloat16 or float16, but it is {_name(z1.dtype)}")
    if not torch._C._dispatch_has_kernel_for_dispatch_key("fastccsa::all_pairs_tile", z1.device.type.upper()):
        raise RuntimeError(f"features1 is on {z1.device}, but this build has no kernels for pairs='all' there")
    acc = accumulation_dtype(z1.dtype)
    expected: list[tuple[str, Tensor, torch.dtype, int]] = [
        ("features1", z1, z1.dtype, 2),
        ("features2", z2, z1.dtype, 2),
    ]
    expected += [("target1", y1, torch.int64, 1), ("target2", y2, torch.int64, 1)]
    if weight is not None:
        expected.append(("pair_weight", weight, acc, 2))
    for name, tensor, dtype, dim in expected:
        if tensor.dim() != dim:
            plural = "s" if dim > 1 else ""
            raise RuntimeError(f"{name} must have {dim} dimension{plural}, but its shape is {list(tensor.shape)}")
        if tensor.dtype != dtype:
            raise RuntimeError(f"{name} must be {_name(dtype)}, but it is {_name(tensor.dtype)}")
        if tensor.device != z1.device:
            raise RuntimeError(f"{name} is on {tensor.device}, but the other tensors are on {z1.device}; move it there")
    sizes: list[tuple[str, Tensor, int, int, str]] = [("features2", z2, 1, z1.shape[1], "the width of features1")]
    sizes += [("target1", y1, 0, z1.shape[0], "a label a row of features1")]
    sizes += [("target2", y2, 0, z2.shape[0], "a label a row of features2")]
    if weight is not None:
        classes = labels or weight.shape[0]
        sizes += [("pair_weight", weight, d, classes, "the number of classes") for d in (0, 1)]
    for name, tensor, d, size, why in sizes:
        if tensor.shape[d] != size:
            raise RuntimeError(f"{name} has shape {list(tensor.shape)}, but dimension {d} must be {size} ({why})")


def check_values(y1: Tensor, y2: Tensor, weight: Tensor | None, labels: int) -> None:
    """Labels in [0, `labels`), unless that is 0; weights not negative."""
    for name, y in (("target1", y1), ("target2", y2)):
        if labels == 0 or len(y) == 0:
            continue
        lowest, highest = torch.aminmax(y)
        if lowest < 0 or highest >= labels:
            row = int(((y < 0) | (y >= labels)).nonzero()[0])
            raise RuntimeError(f"{name}[{row}] is {int(y[row])}, but labels must be in [0, {labels})")
    if weight is not None and weight.numel() > 0 and not weight.min() >= 0:
        cell = (~(weight >= 0)).nonzero()[0].tolist()
        raise RuntimeError(f"pair_weight{cell} is negative or NaN; weights must be 0 or more")
