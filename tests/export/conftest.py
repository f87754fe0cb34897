"""Run folders with untrained models: for export it matters what a model computes, not how well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastccsa import Manifest
from fastccsa.images import Transforms
from fastccsa.models import ModelCard, build_model, save_model
from fastccsa.training import TrainConfig

CLASSES = ("bcc", "mel", "nv")
SIZE = 32


@pytest.fixture(autouse=True)
def _one_thread(one_thread) -> Iterator[None]:
    with torch.random.fork_rng():  # other tests use the generator that initialises models
        yield


@pytest.fixture(scope="session")
def manifest_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    rows = ["image,label,domain,group,split"]
    for domain in ("HAM", "SON"):
        for label in CLASSES:
            for number, split in enumerate(("train", "train", "validation", "test", "test")):
                name = f"{domain}_{label}_{number}.png"
                pixels = random.integers(0, 256, (4, 4, 3)).astype(np.uint8)
                Image.fromarray(pixels).resize((50, 40)).save(folder / name)
                rows.append(f"{name},{label},{domain},{name},{split}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def run_folder(manifest_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with few layers, which is exported quickly."""
    return make_run(tmp_path_factory.mktemp("run"), manifest_csv, "squeezenet1_1")


@pytest.fixture(scope="session")
def batch_norm_run(manifest_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("batch-norm"), manifest_csv, "shufflenet_v2_x0_5")


@pytest.fixture(scope="session")
def manifest(manifest_csv: Path) -> Manifest:
    return Manifest.read(manifest_csv, classes=CLASSES)


def make_run(folder: Path, manifest_csv: Path, backbone: str) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(backbone, len(CLASSES), weights="none")
        model.train()
        for _ in range(5):
            model(torch.randn(16, 3, SIZE, SIZE))
        torch.nn.init.normal_(model.head.weight)
    transforms = Transforms(size=SIZE)
    save_model(folder, model, ModelCard(backbone, CLASSES, ("HAM", "SON"), SIZE, transforms.mean, transforms.std))
    config = TrainConfig(manifest=str(manifest_csv), backbone=backbone, size=SIZE, image_backend="torchvision")
    (folder / "config.json").write_text(config.to_json())
    return folder
