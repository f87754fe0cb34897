"""Classifier compared with its torchvision network; saving and loading weights."""

from __future__ import annotations

import copy
import os
import pickle

import pytest
import torch
import torchvision.models
from torch import nn

from fastccsa.models import Classifier, ModelCard, build_model, load_model, load_weights, save_model
from fastccsa.system.errors import InputError

# The smallest network of each family, with an image size and the width of the last linear layer's input.
FAMILIES = {
    "alexnet": (64, 4096),
    "convnext_tiny": (64, 768),
    "densenet121": (64, 1024),
    "efficientnet_b0": (64, 1280),
    "efficientnet_v2_s": (64, 1280),
    "googlenet": (64, 1024),
    "inception_v3": (80, 2048),
    "maxvit_t": (224, 512),
    "mnasnet0_5": (64, 1280),
    "mobilenet_v2": (64, 1280),
    "mobilenet_v3_small": (64, 1024),
    "regnet_y_400mf": (64, 440),
    "resnet18": (64, 512),
    "resnext50_32x4d": (64, 2048),
    "shufflenet_v2_x0_5": (64, 1024),
    "swin_t": (64, 768),
    "vgg11_bn": (32, 4096),
    "vit_b_32": (64, 768),
}
SMALL = "shufflenet_v2_x0_5"
CARD = ModelCard(SMALL, ("nv", "mel", "bcc"), ("HAM", "SON"), 32, (0.5, 0.4, 0.4), (0.2, 0.2, 0.2))


@pytest.fixture(autouse=True)
def _one_thread(one_thread) -> None:
    """Networks in this file are too small for several threads."""


def torchvision_network(name: str, size: int) -> nn.Module:
    extra: dict[str, object] = {}
    if name in ("googlenet", "inception_v3"):
        extra = {"aux_logits": False, "init_weights": False, "transform_input": True}
    if name.startswith("vit"):
        extra = {"image_size": size}
    if name == "maxvit_t":
        extra = {"input_size": (size, size)}
    return torchvision.models.get_model(name, weights=None, **extra)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_those_of_the_torchvision_network(name: str) -> None:
    size, width = FAMILIES[name]
    network = torchvision_network(name, size).eval()
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    images = torch.randn(1, 3, size, size)
    entering: list[torch.Tensor] = []
    last.register_forward_hook(lambda module, inputs, output: entering.append(inputs[0]))
    with torch.inference_mode():
        expected = network(images)
    model = Classifier(network, last.out_features).eval()
    model.head.weight.data, model.head.bias.data = (
        last.weight.data,
        (last.bias.data if last.bias is not None else torch.zeros(last.out_features)),
    )
    with torch.inference_mode():
        logits, features = model(images)
    assert torch.equal(features, entering[0])
    assert model.feature_width == width == features.shape[1]
    torch.testing.assert_close(logits, expected)


def test_squeezenet_features_are_pooled_maps() -> None:
    network = torchvision.models.squeezenet1_1(weights=None).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = network.features(images).mean((2, 3))
        logits, features = Classifier(network, 7).eval()(images)
    torch.testing.assert_close(features, expected)
    assert logits.shape == (2, 7)


def test_dropout_acts_on_the_logits_and_not_on_the_features() -> None:
    torch.manual_seed(0)  # random weights may give features that are all 0, which dropout does not change
    model = build_model("mobilenet_v2", 7, weights="none")
    assert model.dropout.p == pytest.approx(0.2)
    model.eval().dropout.train()
    images = torch.randn(2, 3, 32, 32)
    (logits1, features1), (logits2, features2) = model(images), model(images)
    assert torch.equal(features1, features2)
    assert not torch.equal(logits1, logits2)


def test_resnet18_has_the_papers_size() -> None:
    model = build_model("resnet18", 7, weights="none")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert round(parameters / 1e6, 2) == 11.18
    assert model.feature_width == 512


def test_googlenet_trains_without_auxiliary_outputs() -> None:
    logits, features = Classifier(torchvision_network("googlenet", 64), 3).train()(torch.randn(2, 3, 64, 64))
    assert logits.shape == (2, 3)
    assert features.shape == (2, 1024)


def test_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(InputError, match=r"unknown backbone 'resnet81': did you mean .*resnet18"):
        build_model("resnet81", 7)
    with pytest.raises(InputError, match="unknown backbone"):
        build_model("fasterrcnn_resnet50_fpn", 7)


def test_a_network_without_a_linear_layer_is_an_error() -> None:
    with pytest.raises(InputError, match="no linear layer"):
        Classifier(nn.Sequential(nn.Conv2d(3, 4, 3)), 7)


def test_a_size_that_the_network_does_not_accept_is_an_error() -> None:
    with pytest.raises(InputError, match="vit_b_16 cannot be built for images of 50 px"):
        build_model("vit_b_16", 7, weights="none", size=50)


@pytest.fixture
def hub_without_network(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    return tmp_path


def test_missing_imagenet_weights_are_reported_or_an_error(hub_without_network, capsys) -> None:
    model = build_model(SMALL, 7, weights="auto")
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "no route to host" in lines[0]
    assert "random weights" in lines[0]
    assert model.head.out_features == 7
    with pytest.raises(InputError, match=r"ImageNet weights of shufflenet_v2_x0_5 .* --weights none"):
        build_model(SMALL, 7, weights="imagenet")


@pytest.mark.parametrize(("name", "key"), [(SMALL, "conv5.0.weight"), ("googlenet", "conv1.conv.weight")])
def test_cached_imagenet_weights_are_used(hub_without_network, capsys, name: str, key: str) -> None:
    extra = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    published = torchvision.models.get_model(name, weights=None, **extra).state_dict()
    url = torchvision.models.get_model_weights(name).IMAGENET1K_V1.url
    cached = hub_without_network / "checkpoints" / os.path.basename(url)
    cached.parent.mkdir()
    torch.save(published, cached)
    model = build_model(name, 7, weights="imagenet")
    assert torch.equal(model.state_dict()[f"backbone.{key}"], published[key])
    assert capsys.readouterr().err == ""


def test_saved_model_gives_the_same_logits(tmp_path) -> None:
    model = build_model(SMALL, 3, weights="none").to(memory_format=torch.channels_last).eval()
    save_model(tmp_path, model, CARD)
    loaded = load_model(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    assert not loaded.training
    torch.testing.assert_close(loaded(images), model(images))
    assert ModelCard.read(tmp_path) == ModelCard.read(tmp_path / "model.safetensors") == CARD


@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model": state, "epoch": 3}])
def test_weights_from_torch_save(tmp_path, wrap) -> None:
    source, target = build_model(SMALL, 3, weights="none"), build_model(SMALL, 3, weights="none")
    torch.save(wrap(source.state_dict()), tmp_path / "weights.pt")
    assert load_weights(target, tmp_path / "weights.pt")
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value), key


def test_weights_of_the_torchvision_network_itself(tmp_path) -> None:
    network = torchvision.models.get_model(SMALL, weights=None)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    model = build_model(SMALL, 3, weights=tmp_path / "weights.pth")
    assert torch.equal(model.state_dict()["backbone.conv1.0.weight"], network.state_dict()["conv1.0.weight"])
    with_new_head = copy.deepcopy(model)
    assert not load_weights(with_new_head, tmp_path / "weights.pth")
    assert torch.equal(with_new_head.head.weight, model.head.weight)


def test_another_number_of_classes_leaves_the_head_unchanged(tmp_path) -> None:
    source, target = build_model(SMALL, 3, weights="none"), build_model(SMALL, 5, weights="none")
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    before = target.head.weight.clone()
    assert not load_weights(target, tmp_path / "weights.pt")
    assert torch.equal(target.head.weight, before)
    key = "backbone.conv1.0.weight"
    assert torch.equal(target.state_dict()[key], source.state_dict()[key])


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_bad_weight_files_are_errors_and_their_code_is_not_executed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = build_model(SMALL, 3, weights="none")
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps({"weights": Bomb()}, protocol=2))
    (tmp_path / "noise.pt").write_bytes(b"noise")
    (tmp_path / "noise.safetensors").write_bytes(b"noise")
    torch.save({"model": {"epoch": 3}}, tmp_path / "odd.pt")
    torch.save(build_model("mnasnet0_5", 3, weights="none").state_dict(), tmp_path / "other.pt")
    for name in ("bomb.pt", "noise.pt", "noise.safetensors", "absent.pt", "odd.pt", "other.pt", "."):
        with pytest.raises(InputError, match=name if name != "." else "no weights at"):
            load_weights(model, tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_without_a_model_is_an_error(tmp_path) -> None:
    with pytest.raises(InputError, match=r"model\.json is missing"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text('{"backbone": "resnet18"}')
    with pytest.raises(InputError, match="not a model card"):
        load_model(tmp_path)
