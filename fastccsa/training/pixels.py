"""The number type of the images of a run: that in which the network's first layer takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from fastccsa.models import Classifier
from fastccsa.runs.config import TrainConfig

# What autocast rounds the input of, and what only looks at its shape.
_ROUNDED = {torch.conv2d, torch.nn.functional.linear}
_SHAPES = {torch.Tensor.size, torch.Tensor.dim, *(getattr(torch.Tensor, name).__get__ for name in ("shape", "ndim"))}


def pixel_dtype(config: TrainConfig, model: Classifier, dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype in which loaders with a cache make the images of a run: bfloat16 or float32.

    It is bfloat16 only if that changes no bit of the results, because autocast rounds the images to it anyway before
    anything is computed from them.

    Args:
        config: the run.
        model: the network, on any device.
        dtype: dtype of autocast; None disables it.
    """
    same = dtype == torch.bfloat16 and config.image_cache is not None and first_layer_is_rounded(model, config.size)
    return torch.bfloat16 if same else torch.float32


def first_layer_is_rounded(model: Classifier, size: int) -> bool:
    """Return whether the network computes nothing from images before layers whose input autocast rounds."""
    device = next(model.parameters()).device
    images = torch.zeros(1, 3, size, size, device=device).to(memory_format=torch.channels_last)
    was_training = model.training
    with torch.no_grad(), _Uses(images) as uses:
        model.eval()(images)
    model.train(was_training)
    return uses.are_rounded


class _Uses(TorchFunctionMode):
    """Watches what is computed directly from some images."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self._images = images
        self.are_rounded = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        if any(value is self._images for value in given) and func not in _SHAPES:
            self.are_rounded &= func in _ROUNDED and args[0] is self._images
        return func(*args, **(kwargs or {}))
