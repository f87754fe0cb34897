"""The layers of a classifier by depth, for learning rates that decay from the head to the first layer."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from fastccsa.models.backbone import Classifier
from fastccsa.models.timm_networks import layer_numbers

_CONTAINERS = (nn.Sequential, nn.ModuleList)
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def layers_by_depth(model: Classifier) -> list[list[nn.Parameter]]:
    """Return all parameters by layer: the head first, then the backbone's layers from the last to the first.

    Layers are those of timm for its networks, and otherwise the residual or transformer blocks and the convolutions
    between them. A normalisation belongs to the layer before it; what belongs to no layer, such as a position
    embedding, belongs to the first one.
    """
    names = layer_numbers(model.backbone) or _own_numbers(model.backbone)
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in model.backbone.named_parameters():
        layers.setdefault(names[name], []).append(parameter)
    return [list(model.head.parameters()), *(layers[number] for number in sorted(layers, reverse=True))]


def _own_numbers(network: nn.Module) -> dict[str, int]:
    """Return the number of each parameter's layer, from 0 for the first."""
    numbers = {name: 0 for name, _ in network.named_parameters()}
    last = -1
    for prefix, module in _units(network, "", _size(network) / 2):
        if not isinstance(module, _NORMS) or last < 0:
            last += 1
        for name, _ in module.named_parameters(prefix=prefix):
            numbers[name] = last
    return numbers


def _units(module: nn.Module, prefix: str, half: float) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers in the order of their definition; modules with more than half of the parameters are opened."""
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if isinstance(child, _CONTAINERS) or (_size(child) > half and any(True for _ in child.children())):
            yield from _units(child, path, half)
        elif _size(child):
            yield path, child


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
