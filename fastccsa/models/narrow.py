"""Layers that are narrower than those of torchvision's network: describing them, and putting them back in place.

A network whose channels were pruned is torchvision's network with some layers replaced. ``model.json`` holds the
constructor arguments of these layers, so the network can be built without the code that pruned it and without a pickle.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from fastccsa.system.errors import InputError

Layers = Mapping[str, Mapping[str, Any]]

# The constructor arguments of each kind of layer; the kind is the name of its class in torch.nn.
_ARGUMENTS = {
    "Conv2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "bias"),
    "BatchNorm2d": ("num_features", "eps", "momentum"),
}
_CHANNELS = ("in_channels", "out_channels", "num_features")


def describe_layer(layer: nn.Module) -> dict[str, Any]:
    """Describe a layer by its class in ``torch.nn``, under ``kind``, and its constructor arguments.

    Raises:
        InputError: the layer is neither an ungrouped convolution nor a batch normalisation.
    """
    kind = type(layer).__name__
    if kind not in _ARGUMENTS or getattr(layer, "groups", 1) != 1:
        raise InputError(f"a {kind} cannot be described as a narrower layer: only Conv2d and BatchNorm2d can")
    values = {name: getattr(layer, name) for name in _ARGUMENTS[kind]}
    if kind == "Conv2d":
        values["bias"] = layer.bias is not None
    return {"kind": kind} | {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def narrow(network: nn.Module, layers: Layers) -> None:
    """Replace layers of ``network``, named as in ``named_modules``, by new ones built from their descriptions.

    Raises:
        InputError: there is no such layer, or a description is not that of the same layer with fewer channels.
    """
    for name, description in layers.items():
        try:
            old = network.get_submodule(name)
        except AttributeError as error:
            raise InputError(f"layer {name} cannot be made narrower: {error}") from error
        arguments = _arguments(name, old, description)
        network.set_submodule(name, getattr(nn, type(old).__name__)(**arguments))


def _arguments(name: str, old: nn.Module, description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the constructor arguments of a narrower layer; they decide about memory, so that each is checked."""
    kind = description.get("kind")
    if kind not in _ARGUMENTS:
        raise InputError(f"layer {name} is of kind {kind!r}: only {' and '.join(_ARGUMENTS)} are known")
    if type(old).__name__ != kind:
        raise InputError(f"layer {name} is a {type(old).__name__} in this network, not a {kind}")
    own = describe_layer(old)
    if own.keys() != description.keys():
        raise InputError(f"layer {name} cannot be made narrower: it needs {', '.join(_ARGUMENTS[kind])}")
    for argument, value in own.items():
        given = description[argument]
        if argument not in _CHANNELS:
            same = (list(given) if isinstance(given, tuple) else given) == value
        else:
            same = type(given) is int and 1 <= given <= value
        if not same:
            limit = f"between 1 and {value}" if argument in _CHANNELS else repr(value)
            raise InputError(f"layer {name} cannot be made narrower: {argument} is {given!r}, and must be {limit}")
    return {argument: value for argument, value in description.items() if argument != "kind"}
