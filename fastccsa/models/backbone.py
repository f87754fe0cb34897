"""Classifiers: any classification network of torchvision or timm, with a new head, that also returns its features."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn

from fastccsa.models.narrow import Layers, narrow
from fastccsa.models.timm_networks import is_timm, timm_network
from fastccsa.models.weights import AUXILIARY, download, imagenet_weights, load_weights
from fastccsa.system.errors import InputError

# Networks whose layers depend on the image size take it as an argument; the others accept any size.
_SIZE_ARGUMENT = {"vit": "image_size", "maxvit": "input_size"}


class Classifier(nn.Module):
    """A network that returns its logits and the features they are computed from.

    The last linear layer of ``network`` becomes ``head``, and a dropout directly before it becomes ``dropout``; the
    rest is ``backbone``. The features are therefore the backbone's pooled output, before dropout and not normalised:
    512 values for ResNet-18.

    Attributes:
        first_weights: the initial weights that `build_model` used: imagenet, none (random weights) or a path.
        replaced: name of the layer that ``head`` replaces.
        batchnorm_is_frozen: whether BatchNorm keeps its statistics while the model is in training mode.
        backbone_is_frozen: whether all of the backbone is as in evaluation mode then, and has no gradients.
        layers: layers of the backbone that are narrower than the network's own; see `fastccsa.models.narrow`.

    Args:
        network: a classification network whose last operation is a linear layer (or a torchvision SqueezeNet, whose
            last layer is a 1x1 convolution). It is changed in place.
        num_classes: number of logits, C.
        head: name of the linear layer to replace; None for the last one.

    Raises:
        InputError: ``network`` has no linear layer to replace.
    """

    first_weights: str = "none"
    batchnorm_is_frozen: bool = False
    backbone_is_frozen: bool = False

    def __init__(self, network: nn.Module, num_classes: int, head: str | None = None) -> None:
        super().__init__()
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}: a classifier needs at least one class")
        self.replaced, width, probability = _remove_head(network, head)
        self.backbone = network
        self.dropout = nn.Dropout(probability)
        self.head = nn.Linear(width, num_classes)
        self.layers: dict[str, Mapping[str, Any]] = {}

    def narrow(self, layers: Layers) -> None:
        """Replace layers of the backbone by narrower ones, and keep their descriptions for the model card.

        Raises:
            InputError: there is no such layer, or a description is invalid.
        """
        narrow(self.backbone, layers)
        self.layers.update(layers)

    def freeze(self, backbone: bool = False, batchnorm: bool = False) -> None:
        """Keep the whole backbone as it is while the head is trained, or only the statistics of its BatchNorm."""
        self.backbone_is_frozen, self.batchnorm_is_frozen = backbone, batchnorm
        self.backbone.requires_grad_(not backbone)
        self.train(self.training)

    def train(self, mode: bool = True) -> Classifier:
        """Set training mode, except for what is frozen."""
        super().train(mode)
        if self.backbone_is_frozen:
            self.backbone.eval()
        elif self.batchnorm_is_frozen:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    @property
    def feature_width(self) -> int:
        """Width of the features, D."""
        return self.head.in_features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images [N, 3, S, S] to (logits [N, C], features [N, D])."""
        features = self.backbone(images)
        return self.head(self.dropout(features)), features


def _remove_head(network: nn.Module, name: str | None) -> tuple[str, int, float]:
    """Remove a linear layer, by default the last, from ``network``.

    Returns:
        Its name, its input width, and the probability of the dropout before it.
    """
    if isinstance(network, torchvision.models.SqueezeNet):
        dropout, convolution = network.classifier[0], network.classifier[1]
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return "classifier", convolution.in_channels, dropout.p
    linear = [
        (found, module)
        for found, module in network.named_modules()
        if isinstance(module, nn.Linear) and name in (None, found)
    ]
    if not linear or linear[-1][1] is network:
        raise InputError(f"{type(network).__name__} has no linear layer that a new head could replace")
    name, head = linear[-1]
    parent = network.get_submodule(name.rpartition(".")[0])
    siblings = list(parent.named_children())
    place = [child for _, child in siblings].index(head)
    setattr(parent, siblings[place][0], nn.Identity())
    # The loss compares features between domains: dropout would add noise to every distance.
    before, dropout = siblings[place - 1] if place else ("", None)
    if not isinstance(dropout, nn.Dropout):
        return name, head.in_features, 0.0
    setattr(parent, before, nn.Identity())
    return name, head.in_features, dropout.p


def build_model(name: str, num_classes: int, weights: str | os.PathLike[str] = "auto", size: int = 224) -> Classifier:
    """Build a classification network by name, with a head of ``num_classes`` logits.

    Args:
        name: as in ``torchvision.models.list_models``, e.g. ``"resnet18"``; or ``timm/`` and a name of timm, e.g.
            ``"timm/convnext_tiny"`` or ``"timm/vit_small_patch16_224.augreg_in21k"``. Networks of timm that were
            trained with another normalisation convert their input.
        num_classes: number of logits.
        weights: ``"auto"`` uses torchvision's ImageNet weights (IMAGENET1K_V1 if it exists) or those of timm, from the
            cache or downloaded; if that fails, it prints one line and starts from random weights. ``"imagenet"``
            requires them. ``"none"`` starts from random weights. Anything else is the path of a run folder, a
            safetensors file or a checkpoint (see `load_weights`).
        size: side length of the images in pixels, on which only transformers depend.

    Returns:
        The model, with float32 weights on the CPU, in training mode.

    Raises:
        InputError: an unknown name, weights that are not available, or a size that the network does not accept.
    """
    if is_timm(name):
        return _timm_model(name, num_classes, weights, size)
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"torchvision has {', '.join(known)}"
        raise InputError(f"unknown backbone {name!r}: {hint}")
    network = _imagenet_network(name, size, weights == "imagenet") if weights in ("auto", "imagenet") else None
    first_weights = "imagenet" if network is not None else "none" if weights == "auto" else os.fspath(weights)
    model = Classifier(_network(name, size, None) if network is None else network, num_classes)
    model.first_weights = first_weights
    if first_weights not in ("imagenet", "none"):
        load_weights(model, first_weights)
    return model


def _timm_model(name: str, num_classes: int, weights: str | os.PathLike[str], size: int) -> Classifier:
    first_weights = "imagenet" if weights in ("auto", "imagenet") else os.fspath(weights)
    try:
        network, head = timm_network(name, size, pretrained=first_weights == "imagenet")
    except InputError:
        raise
    except Exception as error:  # the hub's client has errors of many packages
        reason = str(error).split("\n")[0]
        if first_weights != "imagenet" or weights == "imagenet":
            raise InputError(
                f"the weights of {name} are not available ({reason}): download them with a network once, give a file "
                "with --weights, or choose --weights none"
            ) from error
        print(f"{name}: no pretrained weights ({reason}); training starts from random weights", file=sys.stderr)
        network, head = timm_network(name, size, pretrained=False)
        first_weights = "none"
    model = Classifier(network, num_classes, head)
    model.first_weights = first_weights
    if first_weights not in ("imagenet", "none"):
        load_weights(model, first_weights)
    return model


def _network(name: str, size: int, weights: Any) -> nn.Module:
    arguments: dict[str, Any] = {}
    if name in AUXILIARY:
        # With weights, torchvision requires the auxiliary classifiers and images normalised for ImageNet.
        with_weights = weights is not None
        arguments = {
            "aux_logits": with_weights,
            "transform_input": True,
            "init_weights": not with_weights,
        }
    if keyword := _SIZE_ARGUMENT.get(name.partition("_")[0]):
        arguments[keyword] = size if keyword == "image_size" else (size, size)
    try:
        network = torchvision.models.get_model(name, weights=weights, **arguments)
    except (ValueError, AssertionError) as error:
        raise InputError(f"backbone {name} cannot be built for images of {size} px: {error}") from error
    for auxiliary in AUXILIARY.get(name, ()):
        setattr(network, auxiliary, None)
        network.aux_logits = False
    return network


def _imagenet_network(name: str, size: int, required: bool) -> nn.Module | None:
    """Build the network with ImageNet weights; on failure raise if they are ``required``, else warn and return None."""
    weights = imagenet_weights(name)
    try:
        download(weights)
        return _network(name, size, weights)
    except (OSError, RuntimeError, InputError) as error:
        if required:
            raise InputError(
                f"the ImageNet weights of {name} are not available ({error}): put {Path(weights.url).name} into "
                f"{torch.hub.get_dir()}/checkpoints, or choose --weights none"
            ) from error
        print(f"{name}: no ImageNet weights ({error}); training starts from random weights", file=sys.stderr)
        return None
