"""Backbones: any torchvision classification network, with a head that also hands out its features."""

from __future__ import annotations

import difflib
import json
import os
import pickle
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision.models
from safetensors import SafetensorError
from torch import Tensor, nn

from fastccsa.models.narrow import Layers, narrow
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

MODEL_FILE = "model.safetensors"
CARD_FILE = "model.json"
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer before a download counts as impossible

# Networks whose layers depend on the image size take it as an argument; the others take any size.
_SIZE_ARGUMENT = {"vit": "image_size", "maxvit": "input_size"}
# Networks with auxiliary classifiers, which training by CCSA has no use for.
_AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


class Classifier(nn.Module):
    """A network that returns its logits and the features they are computed from.

    The last linear layer of ``network`` becomes ``head``, and a dropout right before it becomes
    ``dropout``; the rest is ``backbone``. So the features are the backbone's pooled output, before
    dropout and not normalised: width 512 for ResNet-18.

    Attributes:
        first_weights: what `build_model` started it from: imagenet, none (random weights) or a path.
        layers: the backbone's layers that were made narrower than the network's own (see `fastccsa.models.narrow`).

    Args:
        network: a classification network whose last operation is a linear layer (or a torchvision
            SqueezeNet, whose last layer is a 1x1 convolution). It is changed in place.
        num_classes: number of logits, C.

    Raises:
        InputError: ``network`` has no linear layer to replace.
    """

    first_weights: str = "none"

    def __init__(self, network: nn.Module, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise InputError(f"num_classes is {num_classes}: a classifier needs at least one class")
        self.replaced, width, probability = _remove_head(network)
        self.backbone = network
        self.dropout = nn.Dropout(probability)
        self.head = nn.Linear(width, num_classes)
        self.layers: dict[str, Mapping[str, Any]] = {}

    def narrow(self, layers: Layers) -> None:
        """Replace layers of the backbone by narrower ones, and remember them for the model card.

        Raises:
            InputError: there is no such layer, or a description makes none.
        """
        narrow(self.backbone, layers)
        self.layers.update(layers)

    @property
    def feature_width(self) -> int:
        """Width of the features, D."""
        return self.head.in_features

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images [N, 3, S, S] to (logits [N, C], features [N, D])."""
        features = self.backbone(images)
        return self.head(self.dropout(features)), features


def _remove_head(network: nn.Module) -> tuple[str, int, float]:
    """Take the last linear layer out of ``network``: its name, its input width, its dropout's probability."""
    if isinstance(network, torchvision.models.SqueezeNet):
        dropout, convolution = network.classifier[0], network.classifier[1]
        network.classifier = nn.AdaptiveAvgPool2d(1)
        return "classifier", convolution.in_channels, dropout.p
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear or linear[-1][1] is network:
        raise InputError(f"{type(network).__name__} has no linear layer to put a new head in place of")
    name, head = linear[-1]
    parent = network.get_submodule(name.rpartition(".")[0])
    siblings = list(parent.named_children())
    place = [child for _, child in siblings].index(head)
    setattr(parent, siblings[place][0], nn.Identity())
    # The features are compared between domains: dropout would add noise to every distance.
    before, dropout = siblings[place - 1] if place else ("", None)
    if not isinstance(dropout, nn.Dropout):
        return name, head.in_features, 0.0
    setattr(parent, before, nn.Identity())
    return name, head.in_features, dropout.p


def build_model(name: str, num_classes: int, weights: str | os.PathLike[str] = "auto", size: int = 224) -> Classifier:
    """Build a torchvision classification network by name, with a head of ``num_classes`` logits.

    Args:
        name: as in ``torchvision.models.list_models``, e.g. ``"resnet18"``.
        num_classes: number of logits.
        weights: ``"auto"`` takes torchvision's ImageNet weights (IMAGENET1K_V1 where there is one),
            cached or downloaded, and else says in one line that training starts from random weights;
            ``"imagenet"`` insists on them; ``"none"`` is random weights; anything else is the path of a
            run folder, a safetensors file or a checkpoint (see `load_weights`).
        size: side of the images in pixels; only vit and maxvit networks depend on it.

    Raises:
        InputError: an unknown name, weights that cannot be had, or a size the network does not take.
    """
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


def _network(name: str, size: int, weights: Any) -> nn.Module:
    arguments: dict[str, Any] = {}
    if name in _AUXILIARY:
        # With weights torchvision insists on the auxiliary classifiers, and on images normalised for ImageNet.
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
    for auxiliary in _AUXILIARY.get(name, ()):
        setattr(network, auxiliary, None)
        network.aux_logits = False
    return network


def _imagenet_network(name: str, size: int, required: bool) -> nn.Module | None:
    """Build the network with ImageNet weights; else raise InputError if ``required``, or say so for None."""
    choices = torchvision.models.get_model_weights(name)
    chosen = getattr(choices, "IMAGENET1K_V1", choices.DEFAULT)
    try:
        with _download_timeout():
            chosen.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)
        return _network(name, size, chosen)
    except (OSError, RuntimeError, InputError) as error:
        if required:
            raise InputError(
                f"the ImageNet weights of {name} cannot be had ({error}): put {Path(chosen.url).name} into "
                f"{torch.hub.get_dir()}/checkpoints, or choose --weights none"
            ) from error
        print(f"{name}: no ImageNet weights ({error}); training starts from random weights", file=sys.stderr)
        return None


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Give up on a firewall that swallows packets; torch.hub itself would wait without limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_weights(model: Classifier, path: str | os.PathLike[str], head: bool = True) -> bool:
    """Load weights into ``model``; every weight of its backbone must be there.

    Args:
        path: a run folder, a ``.safetensors`` file, a checkpoint of a run, or a state dict saved by
            ``torch.save``; with the names of a `Classifier` or of the torchvision network itself.
        head: load the head as well, where the file has one of the same shape.

    Returns:
        Whether the head was loaded.

    Raises:
        InputError: the file is missing, unreadable, needs code to be unpickled, or is of another network.
    """
    path = Path(path)
    file = path / MODEL_FILE if path.is_dir() else path
    state = _read_state(file)
    if not any(key.startswith("backbone.") for key in state):
        dropped = (model.replaced, *_AUXILIARY["googlenet"], *_AUXILIARY["inception_v3"])
        prefixes = tuple(f"{name}." for name in dropped)
        state = {f"backbone.{key}": value for key, value in state.items() if not key.startswith(prefixes)}
    own = model.state_dict()
    head_keys = ("head.weight", "head.bias")
    with_head = head and all(key in state and state[key].shape == own[key].shape for key in head_keys)
    backbone = {key: value for key, value in state.items() if key not in head_keys}
    for key in sorted((own.keys() - set(head_keys)) | backbone.keys()):
        if key not in own or key not in backbone or own[key].shape != backbone[key].shape:
            raise InputError(f"{file} holds weights of another network: they differ at {key}")
    # Into the model's own state dict, which also has the format versions that some networks ask for.
    own.update(backbone)
    if with_head:
        own.update({key: state[key] for key in head_keys})
    model.load_state_dict(own)
    return with_head


def _read_state(file: Path) -> Mapping[str, Tensor]:
    if not file.is_file():
        raise InputError(f"no weights at {file}: give a run folder with {MODEL_FILE}, or a weights file")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file} is no readable weights file: {reason}") from error
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"{file} holds no state dict: save one with torch.save(model.state_dict(), path)")
    return state


@dataclass(frozen=True)
class ModelCard:
    """What one must know beside the weights to use a model; ``model.json`` in a run folder.

    ``classes`` are the logits in order, ``domains`` those it was trained on, ``size`` the side of its
    images in pixels, ``mean`` and ``std`` their normalisation by channel (of values in [0, 1]). ``layers``
    are those of a pruned backbone, by name, that are narrower than torchvision's (see `fastccsa.models.narrow`).
    """

    backbone: str
    classes: tuple[str, ...]
    domains: tuple[str, ...]
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: Layers = field(default_factory=dict)

    @staticmethod
    def read(path: str | os.PathLike[str]) -> ModelCard:
        """Read the card of a run folder, or the one beside a weights file.

        Raises:
            InputError: there is none, or it is incomplete.
        """
        path = Path(path)
        file = (path if path.is_dir() else path.parent) / CARD_FILE
        try:
            values: dict[str, Any] = json.loads(file.read_text())
            values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            return ModelCard(**values)
        except OSError as error:
            raise InputError(f"no trained model in {path}: {CARD_FILE} is missing; train it first") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{file} is no model card: {error}") from error


def save_model(folder: str | os.PathLike[str], model: Classifier, card: ModelCard) -> None:
    """Write ``model.safetensors`` and ``model.json`` into ``folder``, each whole or not at all.

    The card's ``layers`` are the model's own.
    """
    folder = Path(folder)
    # safetensors stores rows one after another: weights kept channels-last are copied into that order.
    state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    values = asdict(replace(card, layers=model.layers))
    if not model.layers:
        del values["layers"]
    with write_atomically(folder / CARD_FILE) as file:
        file.write_text(json.dumps(values, indent=2) + "\n")
    with write_atomically(folder / MODEL_FILE) as file:
        safetensors.torch.save_file(state, file)


def load_model(path: str | os.PathLike[str]) -> Classifier:
    """Load a run folder's best model (or a ``model.safetensors``) onto the CPU, in evaluation mode.

    Raises:
        InputError: there is no model, or its weights and card disagree.
    """
    card = ModelCard.read(path)
    model = build_model(card.backbone, len(card.classes), weights="none", size=card.size)
    model.narrow(card.layers)
    if not load_weights(model, path):
        raise InputError(f"{path} has another number of classes than its {CARD_FILE} says")
    return model.eval()
