"""Batches of an evaluation, passed through a model in parts if the memory of a GPU has no room for the whole."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from fastccsa.models import Classifier
from fastccsa.system import gpu_memory

logger = logging.getLogger("fastccsa.evaluation")


class Parts:
    """Runs models on batches of images. If a batch is too large for the GPU, it and all later ones are halved.

    The parts of a batch are one after another in the results, which are those of the whole batch up to rounding.
    """

    def __init__(self) -> None:
        self._most: int | None = None  # images in a part

    def run(self, models: Sequence[Classifier], images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the logits and features of each of ``models``.

        Raises:
            torch.OutOfMemoryError: there is no room for a single image, or for what a CUDA graph needs while it is
                being captured.
        """
        while True:
            rows = min(self._most or len(images), len(images))
            try:
                parts = [[model(part) for model in models] for part in images.split(rows)]
                break
            except RuntimeError as error:
                is_capturing = images.is_cuda and torch.cuda.is_current_stream_capturing()
                if rows == 1 or is_capturing or not gpu_memory.ran_out(error):
                    raise
                reason = str(error).split("\n")[0]
            # Not in the block above, where the error still holds what was computed.
            self._most = (rows + 1) // 2
            logger.warning("an evaluation takes %d images at a time instead of %d: %s", self._most, rows, reason)
            gpu_memory.release()
        if len(parts) == 1:
            return parts[0]
        return [_joined(of_model) for of_model in zip(*parts, strict=True)]


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    logits, features = zip(*parts, strict=True)
    return torch.cat(logits), torch.cat(features)
