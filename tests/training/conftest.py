"""A small data set whose colours tell the classes: three domains, three classes, 40 px images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastccsa.training import TrainConfig

CLASSES = ("nv", "mel", "bcc")
SMALL = "shufflenet_v2_x0_5"

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _one_thread(one_thread) -> None:
    """Every test of this folder."""


@pytest.fixture(scope="session")
def manifest_csv(draw_collections) -> Path:
    return draw_collections(dict.fromkeys(("DMF", "HAM", "SON"), CLASSES), 5)


@pytest.fixture
def make_config(manifest_csv, tmp_path) -> MakeConfig:
    """Configurations of CCSA on 45 training images, 12 steps an epoch; ``out`` names a folder in tmp_path."""

    def make(out: str = "run", **changes) -> TrainConfig:
        small = {
            "backbone": SMALL,
            "weights": "none",
            "size": 32,
            "epochs": 2,
            "batch_size": 4,
            "lr": 1e-3,
            "lr_step": 1,
            "device": "cpu",
            "workers": 1,
        }
        return TrainConfig(manifest=str(manifest_csv), out=str(tmp_path / out), **{**small, **changes})

    return make
