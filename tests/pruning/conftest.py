"""Two tiny ResNets among torchvision's, and a finished run of each on images whose colours tell the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torchvision.models._api
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from fastccsa.models import Classifier, build_model
from fastccsa.training import TrainConfig, train

BLOCKS = {"resnet_basic": BasicBlock, "resnet_bottleneck": Bottleneck}


class NarrowResNet(ResNet):
    """One block per group, with a sixteenth of the usual widths: 4, 8, 16 and 32 channels inside the blocks."""

    def _make_layer(self, block, planes, *arguments, **options):
        return super()._make_layer(block, planes // 16, *arguments, **options)


@pytest.fixture(autouse=True, scope="session")
def _tiny_resnets() -> Iterator[None]:
    known = torchvision.models._api.BUILTIN_MODELS

    def builder(block: type) -> Callable[..., nn.Module]:
        def build(*, weights: object = None, num_classes: int = 1000) -> nn.Module:
            network = NarrowResNet(block, [1, 1, 1, 1])
            network.fc = nn.Linear(32 * block.expansion, num_classes)
            return network

        build.__module__ = "torchvision.models.resnet"
        return build

    known |= {name: builder(block) for name, block in BLOCKS.items()}
    yield
    for name in BLOCKS:
        del known[name]


@pytest.fixture(params=BLOCKS)
def model(request: pytest.FixtureRequest) -> Classifier:
    """A tiny ResNet in evaluation mode with nontrivial normalisations."""
    return make_model(request.param)


def make_model(name: str) -> Classifier:
    torch.manual_seed(0)
    model = build_model(name, 3, weights="none")
    model.train()
    for _ in range(20):
        model(torch.randn(16, 3, 32, 32))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    return model.eval()


@pytest.fixture(autouse=True)
def _one_thread(one_thread) -> Iterator[None]:
    with torch.random.fork_rng():  # other tests use the generator that training seeds
        yield


@pytest.fixture(scope="session")
def make_run(manifest_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes finished runs; the same arguments give the same folder."""
    made: dict[str, Path] = {}

    def make(backbone: str = "resnet_basic", **changes) -> Path:
        key = f"{backbone} {changes}"
        if key not in made:
            made[key] = tmp_path_factory.mktemp("runs") / "k"
            settings = {"size": 32, "epochs": 1, "batch_size": 8, "lr": 1e-3, "device": "cpu", "workers": 1}
            config = TrainConfig(
                manifest=str(manifest_csv),
                out=str(made[key]),
                backbone=backbone,
                weights="none",
                image_backend="torchvision",
                **(settings | changes),
            )
            train(config, progress=False)
        return made[key]

    return make
