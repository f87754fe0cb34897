"""The layers of networks by depth."""

from __future__ import annotations

import pytest
import timm
from timm.optim import param_groups_layer_decay

from fastccsa.models import build_model
from fastccsa.models.depth import layers_by_depth

# First parameters of the first layers below the head, and of the last ones; and the number of layers, head included.
LAYERS = {
    "resnet18": (10, ["layer4.1.conv1.weight", "layer4.0.conv1.weight"], ["layer1.0.conv1.weight", "conv1.weight"]),
    "vit_b_32": (
        14,
        ["encoder.layers.encoder_layer_11.ln_1.weight", "encoder.layers.encoder_layer_10.ln_1.weight"],
        ["encoder.layers.encoder_layer_0.ln_1.weight", "class_token"],
    ),
    "convnext_tiny": (23, ["features.7.2.layer_scale"], ["features.1.0.layer_scale", "features.0.0.weight"]),
    "squeezenet1_1": (10, ["features.12.squeeze.weight"], ["features.0.weight"]),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_torchvision_networks(name: str) -> None:
    count, first, last = LAYERS[name]
    model = build_model(name, 3, weights="none", size=64)
    names = {parameter: key for key, parameter in model.named_parameters()}
    layers = [[names[parameter] for parameter in layer] for layer in layers_by_depth(model)]
    assert len(layers) == count
    assert layers[0] == ["head.weight", "head.bias"]
    assert [layer[0].removeprefix("backbone.") for layer in layers[1 : 1 + len(first)]] == first
    assert [layer[0].removeprefix("backbone.") for layer in layers[-len(last) :]] == last
    assert sorted(key for layer in layers for key in layer) == sorted(names.values())


def test_a_normalisation_belongs_to_the_layer_before_it() -> None:
    model = build_model("resnet18", 3, weights="none", size=64)
    first = layers_by_depth(model)[-1]
    assert len(first) == 3  # conv1, and bn1's weight and bias
    assert any(parameter is model.backbone.bn1.weight for parameter in first)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto", "resnet18"])
def test_layers_of_timm_networks_are_timm_s(name: str) -> None:
    """The layers below the head are in the order of timm's own decay, and split like it."""
    network = timm.create_model(name, pretrained=False, num_classes=3, **({"img_size": 64} if "vit" in name else {}))
    scales = _scales(network)
    model = build_model(f"timm/{name}", 3, weights="none", size=64)
    names = {parameter: key.removeprefix("backbone.") for key, parameter in model.named_parameters()}
    layers = [{scales[names[parameter]] for parameter in layer} for layer in layers_by_depth(model)[1:]]
    assert all(len(layer) == 1 for layer in layers)
    order = [scale for (scale,) in layers]
    assert order == sorted(set(order), reverse=True)


def _scales(network) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.5)
        for parameter in group["params"]
    }
