"""A small data set whose colours tell the classes: three domains, three classes, 40 px images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastccsa.training import TrainConfig

COLOURS = {"nv": (200, 60, 60), "mel": (60, 200, 60), "bcc": (60, 60, 200)}
DOMAINS = ("DMF", "HAM", "SON")
SPLITS = ["train"] * 5 + ["validation"] * 2 + ["test"] * 2
SMALL = "shufflenet_v2_x0_5"

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def manifest_csv(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    rows = ["image,label,domain,group,split"]
    for domain in DOMAINS:
        for label, colour in COLOURS.items():
            for number, split in enumerate(SPLITS):
                name = f"{domain}_{label}_{number}.png"
                pixels = random.normal(colour, 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name)
                rows.append(f"{name},{label},{domain},{name},{split}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


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
