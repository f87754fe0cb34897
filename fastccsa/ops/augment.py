"""The ops that turn stored crops and decoded images into augmented, normalised batches; kernels in ``csrc/augment``."""

from __future__ import annotations

from typing import Any

import torch

from fastccsa.ops import library  # noqa: F401 - loads the ops

__all__ = ["augment_file_out", "augment_out", "augment_picture_out"]

augment_out = torch.ops.fastccsa.augment_out.default
augment_file_out = torch.ops.fastccsa.augment_file_out.default
augment_picture_out = torch.ops.fastccsa.augment_picture_out.default


@torch.library.register_fake("fastccsa::augment_out")
@torch.library.register_fake("fastccsa::augment_picture_out")
def _augment_fake(*args: Any) -> None:
    """Do nothing: the ops return nothing and only write to their first argument."""


@torch.library.register_fake("fastccsa::augment_file_out")
def _augment_file_fake(*args: Any) -> bool:
    """Only write to the first argument, and report success."""
    return True
