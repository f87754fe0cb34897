"""How finished images lie in memory: channels-last, in which networks take them without a copy."""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa.images.transforms import Transforms


def new_images(count: int, transforms: Transforms, device: torch.device | None = None) -> Tensor:
    """Allocate a batch on the CPU, float32 [count, 3, size, size]; in pinned memory if ``device`` is a GPU."""
    pinned = device is not None and device.type == "cuda"
    shape = (count, 3, transforms.size, transforms.size)
    return torch.empty(shape, memory_format=torch.channels_last, pin_memory=pinned)
