"""Runs whose loaders make bfloat16 images end with the bits of runs whose first layer rounds float32 images."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.images import ImageLoader, PairLoader
from fastccsa.models import Classifier, build_model
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.system.devices import autocast
from fastccsa.training import loop as loop_module
from fastccsa.training import train
from fastccsa.training.graph import StaticStep
from fastccsa.training.pixels import first_layer_is_rounded, pixel_dtype
from fastccsa.training.ranks import ALONE
from fastccsa.training.scoring import open_validation

CPU = torch.device("cpu")
RUN = {"amp": "bfloat16", "cache": "ram", "image_backend": "torchvision"}


@pytest.fixture
def made(monkeypatch) -> list[torch.dtype]:
    """The number types of the images of all batches that loaders make from now on."""
    dtypes: list[torch.dtype] = []
    for kind in (ImageLoader, PairLoader):

        def assemble(self, labels, images, original=kind._assemble):
            dtypes.append(images.dtype)
            return original(self, labels, images)

        monkeypatch.setattr(kind, "_assemble", assemble)
    return dtypes


def state(out: str) -> dict:
    return torch.load(Path(out) / "last.pt", weights_only=True)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("algorithm", "steps"), [({}, 12), ({"alignment": "-"}, 11)])
def test_a_run_ends_with_the_same_bits(make_config, monkeypatch, made, algorithm, steps, static) -> None:
    """Weights, BatchNorm's statistics, the optimiser, losses and scores; ``static``: the step that graphs capture."""
    if static:
        monkeypatch.setattr(loop_module, "Step", StaticStep)
    configs = {}
    for name in ("bfloat16", "float32"):
        configs[name] = make_config(name, **RUN, **algorithm)
        if name == "float32":
            monkeypatch.setattr(loop_module, "pixel_dtype", lambda *args: torch.float32)
        made.clear()
        configs[name, "scores"] = train(configs[name], progress=False)
        trained = [dtype for dtype in made if dtype == torch.bfloat16]
        # 2 epochs, a batch of validation after each, and one for the selected model.
        assert len(trained) == (2 * steps + 3 if name == "bfloat16" else 0)
    assert configs["bfloat16", "scores"] == configs["float32", "scores"]
    one, other = (state(configs[name].out) for name in ("bfloat16", "float32"))
    for key, value in one["model"].items():
        assert torch.equal(value, other["model"][key]), key
    for number, values in one["optimizer"]["state"].items():
        assert all(torch.equal(value, other["optimizer"]["state"][number][key]) for key, value in values.items())
    assert [line["loss"] for line in one["history"]] == [line["loss"] for line in other["history"]]


def test_a_run_goes_on_with_the_other_number_type(make_config, monkeypatch) -> None:
    whole, resumed = (make_config(name, **RUN, checkpoint_every=4) for name in ("whole", "resumed"))
    train(whole, progress=False)

    class Killed(Exception):
        pass

    def killed(epoch: int, recall: float) -> None:
        raise Killed

    with pytest.raises(Killed):
        train(resumed, progress=False, on_epoch=killed)
    monkeypatch.setattr(loop_module, "pixel_dtype", lambda *args: torch.float32)
    train(resumed, progress=False)
    one, other = state(whole.out)["model"], state(resumed.out)["model"]
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_the_first_layers_see_the_same_values_in_training_and_validation(make_config) -> None:
    config = make_config(**RUN)
    config, manifest = open_manifest(config)
    images = select_images(config, manifest)
    torch.manual_seed(0)
    fresh = build_model(config.backbone, len(manifest.classes), "none", config.size)
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        model = deepcopy(fresh)
        with open_validation(config, images, CPU, ALONE, dtype) as loader:
            (batch,) = loader.epoch(0)
            assert batch["images"].dtype == dtype
            batchnorm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
            with autocast(CPU, torch.bfloat16), torch.no_grad():
                model.train()(batch["images"])
                statistics = batchnorm.running_mean.clone(), batchnorm.running_var.clone()
                logits, _ = model.eval()(batch["images"])
            replayed = ReplayedPredictions(loader, torch.bfloat16, capture=False)(model)
        found[dtype] = *statistics, logits, torch.from_numpy(replayed.predictions)
    assert found[torch.float32][0].abs().sum() > 0
    for one, other in zip(*found.values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("settings", "dtype", "expected"),
    [
        ({}, torch.bfloat16, torch.bfloat16),
        ({}, None, torch.float32),
        ({}, torch.float16, torch.float32),
        ({"cache": "none"}, torch.bfloat16, torch.float32),
    ],
)
def test_images_are_bfloat16_where_autocast_is(make_config, settings, dtype, expected) -> None:
    config = make_config(**{**RUN, **settings})
    assert pixel_dtype(config, build_model(config.backbone, 3, "none", config.size), dtype) == expected


@pytest.mark.parametrize(
    ("backbone", "size", "rounded"),
    [("resnet18", 64, True), ("vit_b_32", 32, True), ("squeezenet1_1", 64, True), ("googlenet", 64, False)],
)
def test_networks_that_compute_from_images_first_get_float32(backbone: str, size: int, rounded: bool) -> None:
    """GoogLeNet of torchvision converts the normalisation of the images."""
    model = build_model(backbone, 3, "none", size)
    assert first_layer_is_rounded(model, size) is rounded
    assert model.training


class Residual(nn.Module):
    """Uses the images twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last((images + self.first(images)).mean((2, 3)))


def test_every_use_of_the_images_counts() -> None:
    assert not first_layer_is_rounded(Classifier(Residual(), 2), 8)


def test_mixup_mixes_float32_images(make_config, made) -> None:
    train(make_config(**RUN, algorithm="mixup", epochs=1), progress=False)
    assert made[0] == torch.float32
    assert torch.bfloat16 in made  # the validation images
