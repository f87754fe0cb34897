"""Backbones of timm: their logits, input normalisation, names, sizes and weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from fastccsa.images import Transforms
from fastccsa.models import ModelCard, build_model, load_model, save_model
from fastccsa.system.errors import InputError
from fastccsa.training import train

SIZE = 64
# Names with the width of the features; the second kind was trained with another normalisation than ImageNet's.
NETWORKS = {"convnext_atto": 320, "mobilenetv4_conv_small": 1280, "vit_tiny_patch16_224": 192}
OWN_NORMALISATION = "vit_tiny_patch16_224"


@pytest.fixture(autouse=True)
def _one_thread(one_thread) -> None:
    """Networks in this file are too small for several threads."""


def timm_model(name: str, classes: int) -> torch.nn.Module:
    size = {"img_size": SIZE} if name.startswith("vit") else {}
    return timm.create_model(name, pretrained=False, num_classes=classes, **size).eval()


def normalised(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_those_of_the_timm_network(name: str, tmp_path: Path) -> None:
    """Given the same weights and the same pixels, each normalised as its network wants it."""
    network = timm_model(name, 5)
    file = tmp_path / "weights.pt"
    torch.save(network.state_dict(), file)
    model = build_model(f"timm/{name}", 5, weights=file, size=SIZE).eval()
    head = network.pretrained_cfg["classifier"]
    model.head.load_state_dict(network.get_submodule(head).state_dict())
    assert (model.feature_width, model.replaced) == (NETWORKS[name], head)
    pixels = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    config = network.pretrained_cfg
    with torch.no_grad():
        expected = network(normalised(pixels, config["mean"], config["std"]))
        logits, features = model(normalised(pixels, Transforms().mean, Transforms().std))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert features.shape == (2, NETWORKS[name])
    assert (config["mean"] != Transforms().mean) == (name == OWN_NORMALISATION)


def test_saving_and_loading(tmp_path: Path) -> None:
    model = build_model(f"timm/{OWN_NORMALISATION}", 3, weights="none", size=SIZE).eval()
    card = ModelCard(f"timm/{OWN_NORMALISATION}", ("a", "b", "c"), ("HAM",), SIZE, Transforms().mean, Transforms().std)
    save_model(tmp_path, model, card)
    images = torch.randn(1, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path).eval()(images)[0], model(images)[0], rtol=0, atol=0)
    # The numbers of the normalisation are not weights, so that other programs can read the file.
    assert not any("input_" in key for key in model.state_dict())


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("timm/convnext_atomic", 64, "unknown backbone 'timm/convnext_atomic': did you mean timm/convnext_atto"),
        ("timm/zzzz", 64, "see timm.list_models"),
        ("timm/deit_tiny_distilled_patch16_224", 64, "has no single linear layer at its end"),
    ],
)
def test_bad_names_and_sizes(name: str, size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model(name, 3, weights="none", size=size)


def test_a_size_that_the_network_refuses(monkeypatch) -> None:
    def refuse(*names, **arguments):
        raise AssertionError("windows do not fit")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(InputError, match=r"timm/swin_tiny.* cannot be built for images of 3 px: windows do not fit"):
        build_model("timm/swin_tiny_patch4_window7_224", 3, weights="none", size=3)


@pytest.mark.parametrize("weights", ["auto", "imagenet"])
def test_weights_that_cannot_be_had(monkeypatch, capsys, weights: str) -> None:
    create = timm.create_model

    def offline(name: str, pretrained: bool, **arguments):
        if pretrained:
            raise OSError("no network\nand more")
        return create(name, pretrained=False, **arguments)

    monkeypatch.setattr(timm, "create_model", offline)
    if weights == "imagenet":
        with pytest.raises(InputError, match=r"the weights of timm/convnext_atto are not available \(no network\)"):
            build_model("timm/convnext_atto", 3, weights=weights)
        return
    assert build_model("timm/convnext_atto", 3, weights=weights).first_weights == "none"
    assert capsys.readouterr().err == (
        "timm/convnext_atto: no pretrained weights (no network); training starts from random weights\n"
    )


@pytest.mark.parametrize("name", ["convnext_atto", OWN_NORMALISATION])
def test_a_run_trains(make_config, name: str) -> None:
    config = make_config(backbone=f"timm/{name}", epochs=1, batch_size=8)
    assert 0 <= train(config, progress=False).average <= 1
    assert load_model(config.out).feature_width == NETWORKS[name]
