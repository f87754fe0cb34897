"""The scripts in examples/, imported as when they are run: with their own folder on the path."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import an example by name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module


@pytest.fixture
def row_data(tmp_path: Path) -> Path:
    """Arrays named like the published ones, but fewer: each class is a bright square at its own place, noisier in USPS.

    Two of the test images are also training images.
    """
    folder = tmp_path / "row_data"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def draw(count: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(count) % 10
        images = noise * rng.random((count, 16, 16))
        for image, label in zip(images, labels, strict=True):
            row, column = divmod(int(label), 5)
            image[1 + 7 * row : 7 + 7 * row, 1 + 3 * column : 4 + 3 * column] += 1 - noise
        return images.astype(np.float16), labels.astype(np.uint8)

    for repetition in (0, 1):
        source, target, test = draw(150, 0.1), draw(10, 0.4), draw(60, 0.4)
        test[0][:2] = target[0][:2]
        for name, (images, labels) in {"train_source": source, "train_target": target, "test_target": test}.items():
            ending = f"{name}_repetition_{repetition}_sample_per_class_1.npy"
            np.save(folder / f"MNIST_to_USPS_X_{ending}", images)
            np.save(folder / f"MNIST_to_USPS_y_{ending}", labels)
    return folder
