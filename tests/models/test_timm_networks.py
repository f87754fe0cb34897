"""Backbones of timm: their logits, input normalisation, names, sizes and weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
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


def published_dinov2(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights of timm's DINOv2 under the names of the published file, whose class token has no position."""
    state = {key: value for key, value in network.state_dict().items() if not key.startswith("head.")}
    first = torch.randn_like(state["cls_token"][:, 0]) * 1e-6  # as small as the token, which would be rounded otherwise
    state["pos_embed"] = torch.cat([first[:, None], state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - first
    state["register_tokens"] = state.pop("reg_token")
    return {**state, "mask_token": torch.zeros(1, 384)}


def published_dinov3(network: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights of timm's DINOv3 under the names of the published file, which has zeros as biases of keys."""
    names = {"gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", "reg_token": "storage_tokens"}
    state = {"mask_token": torch.zeros(1, 384), "rope_embed.periods": torch.ones(16)}
    for key, value in network.state_dict().items():
        for own, theirs in names.items():
            key = key.replace(own, theirs)
        if not key.startswith("head."):
            state[key] = value
        if key.endswith("qkv.weight"):
            state[key.replace("weight", "bias")] = torch.zeros(3 * 384)
    return state


DINO = {
    "vit_small_patch14_reg4_dinov2": (56, published_dinov2),
    "vit_small_patch16_dinov3": (64, published_dinov3),
}


@pytest.mark.parametrize("name", DINO)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_dino_from_a_local_file(tmp_path: Path, capfd, name: str, suffix: str) -> None:
    size, published = DINO[name]
    torch.manual_seed(0)
    network = timm.create_model(name, pretrained=False, num_classes=0, img_size=size).eval()
    file = tmp_path / f"dino{suffix}"
    if suffix == ".pth":
        torch.save(published(network), file)
    else:
        safetensors.torch.save_file({key: value.contiguous() for key, value in published(network).items()}, file)
    model = build_model(f"timm/{name}", 3, weights=file, size=size).eval()
    assert model.first_weights == str(file)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(model(images)[1], network(images), rtol=1e-4, atol=1e-5)
    assert capfd.readouterr().out == ""


def test_positions_of_another_size_are_resampled(tmp_path: Path) -> None:
    name = "vit_small_patch14_reg4_dinov2"
    network = timm.create_model(name, pretrained=False, num_classes=0, img_size=84)
    torch.save(network.state_dict(), tmp_path / "dino.pth")
    model = build_model(f"timm/{name}", 3, weights=tmp_path / "dino.pth", size=56)
    grid = network.pos_embed.reshape(1, 6, 6, 384).permute(0, 3, 1, 2)
    smaller = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", antialias=True)
    expected = smaller.permute(0, 2, 3, 1).reshape(1, 16, 384)
    torch.testing.assert_close(model.backbone.pos_embed, expected, rtol=1e-4, atol=1e-5)


def test_a_file_of_another_network(tmp_path: Path) -> None:
    file = tmp_path / "other.pth"
    torch.save(timm_model("convnext_atto", 5).state_dict(), file)
    with pytest.raises(InputError, match=r"other\.pth holds weights of another network"):
        build_model(f"timm/{OWN_NORMALISATION}", 3, weights=file, size=SIZE)
    torch.save({"pos_embed": torch.zeros(3), "cls_token": torch.zeros(1)}, file)
    with pytest.raises(InputError, match=r"other\.pth holds weights of another network: timm cannot convert it"):
        build_model(f"timm/{OWN_NORMALISATION}", 3, weights=file, size=SIZE)


def test_code_in_a_file_of_a_timm_network_is_not_run(tmp_path: Path) -> None:
    torch.save({"cls_token": Touch(tmp_path / "touched")}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="is not a readable weights file"):
        build_model("timm/vit_tiny_patch16_224", 3, weights=tmp_path / "bad.pth", size=SIZE)
    assert not (tmp_path / "touched").exists()


class Touch:
    """Makes a file when it is unpickled with code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)
