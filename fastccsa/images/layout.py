"""How finished images lie in memory: channels-last, in which networks take them without a copy; their number type."""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa.images.transforms import Transforms
from fastccsa.system.errors import InputError

DTYPES = (torch.float32, torch.bfloat16)


def check_dtype(dtype: torch.dtype, cache: str | None) -> None:
    """Validate the ``dtype`` argument of a loader.

    Raises:
        InputError: it is another number type, or bfloat16 without a cache.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype is {dtype}; give torch.float32 or torch.bfloat16")
    if dtype == torch.bfloat16 and cache is None:
        raise InputError("dtype is torch.bfloat16, which needs a cache: use torch.float32, or cache='ram'")


def new_images(
    count: int, transforms: Transforms, device: torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Allocate a batch on the CPU, [count, 3, size, size]; in pinned memory if ``device`` is a GPU."""
    pinned = device is not None and device.type == "cuda"
    shape = (count, 3, transforms.size, transforms.size)
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last, pin_memory=pinned)
