"""The ops that make finished images of stored crops and of decoded pictures; ``csrc/augment`` has the kernels."""

from __future__ import annotations

from typing import Any

import torch

from fastccsa.ops import library  # noqa: F401 - loads the ops

__all__ = ["augment_out", "augment_picture_out"]

augment_out = torch.ops.fastccsa.augment_out.default
augment_picture_out = torch.ops.fastccsa.augment_picture_out.default


@torch.library.register_fake("fastccsa::augment_out")
@torch.library.register_fake("fastccsa::augment_picture_out")
def _augment_fake(*args: Any) -> None:
    """The ops only write to their first argument."""
