"""The arrays of the original CCSA experiment: MNIST to USPS, 16x16 pixels, published at github.com/samotiian/CCSA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fastccsa import InputError

CLASSES = 10


@dataclass(frozen=True)
class Digits:
    """One split of the two domains. Images are float32 [n, 1, 16, 16] in [0, 1], labels int64 [n] in 0..9."""

    source: Tensor  # 2000 MNIST images
    source_labels: Tensor
    target: Tensor  # n USPS images per class, for training
    target_labels: Tensor
    test: Tensor  # 1800 USPS images, which include some of the training images
    test_labels: Tensor

    def unseen(self) -> Tensor:
        """Return which test images are not among the training images, bool [n]."""
        test, seen = self.test.flatten(1), self.target.flatten(1)
        return ~(test[:, None] == seen[None]).all(-1).any(1)


def read_digits(folder: Path, per_class: int, repetition: int) -> Digits:
    """Read one repetition with `per_class` labelled target images per class.

    Raises:
        InputError: a file is missing, or its shape differs from the published file's.
    """

    def read(name: str) -> np.ndarray:
        path = folder / f"MNIST_to_USPS_{name}_repetition_{repetition}_sample_per_class_{per_class}.npy"
        if not path.is_file():
            raise InputError(f"{path} does not exist; give the folder row_data of a clone of github.com/samotiian/CCSA")
        return np.load(path)

    def images(name: str) -> Tensor:
        array = read(f"X_{name}")
        if array.ndim != 3 or array.shape[1:] != (16, 16):
            raise InputError(f"X_{name} in {folder} has shape {array.shape}; [n, 16, 16] is expected")
        return torch.from_numpy(array.astype(np.float32))[:, None]

    def labels(name: str) -> Tensor:
        return torch.from_numpy(read(f"y_{name}").astype(np.int64).reshape(-1))

    return Digits(
        images("train_source"), labels("train_source"),
        images("train_target"), labels("train_target"),
        images("test_target"), labels("test_target"),
    )  # fmt: skip
