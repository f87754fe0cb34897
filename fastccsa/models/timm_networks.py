"""Networks of timm (PyTorch Image Models), by names that begin with ``timm/``."""

from __future__ import annotations

import difflib
import io
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn

from fastccsa.system.errors import InputError
from fastccsa.system.extras import install_advice

PREFIX = "timm/"
# The normalisation of the image pipeline, ImageNet's.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def is_timm(name: str) -> bool:
    """Return whether a backbone is one of timm's."""
    return name.startswith(PREFIX)


def timm_network(name: str, size: int, pretrained: bool) -> tuple[nn.Module, str]:
    """Build a network of timm.

    Args:
        name: as in ``timm.list_models``, after ``timm/``; with a tag such as ``.augreg_in21k`` it also chooses weights.
        size: side length of the images in pixels, for networks that depend on it.
        pretrained: load timm's weights, from the cache of Hugging Face or downloaded.

    Returns:
        The network, which takes images normalised for ImageNet, and the name of its last linear layer.

    Raises:
        InputError: timm is not installed, has no such network, or cannot build it for this size.
        OSError, RuntimeError: the weights are not available.
    """
    with install_advice():
        import timm

    short = name.removeprefix(PREFIX)
    known = timm.list_models()
    if short.partition(".")[0] not in known:
        close = difflib.get_close_matches(short, known, n=3)
        hint = f"did you mean {' or '.join(PREFIX + each for each in close)}?" if close else "see timm.list_models()"
        raise InputError(f"unknown backbone {name!r}: {hint}")
    network = _create(timm.create_model, short, size, pretrained)
    classifier = _facts(network).get("classifier")
    if not isinstance(classifier, str) or not isinstance(network.get_submodule(classifier), nn.Linear):
        raise InputError(f"backbone {name} has no single linear layer at its end that a new head could replace")
    _normalise_input(network)
    return network, classifier


def layer_numbers(network: nn.Module) -> dict[str, int] | None:
    """Return the number of each parameter's layer, from 0 for the first, as timm says; None if it does not."""
    matcher = getattr(network, "group_matcher", None)
    if not callable(matcher):
        return None
    from timm.models import group_parameters

    numbers: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)  # type: ignore[arg-type]
    return numbers


def convert_weights(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring published weights, such as DINOv2's and DINOv3's, into the names and sizes of one of timm's networks.

    Weights that have them already stay as they are. Position embeddings of another image size are resampled.

    Raises:
        InputError: they are not weights of such a network; the message does not name the file.
    """
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return dict(state)
    try:
        with redirect_stdout(io.StringIO()):  # it prints what it leaves out
            return dict(convert(dict(state), network))
    except Exception as error:  # it expects its own weights, and fails in any way at others
        raise InputError(f"timm cannot convert it: {type(error).__name__}: {error}") from error


def _create(create: Any, name: str, size: int, pretrained: bool) -> nn.Module:
    def build(**arguments: Any) -> nn.Module:
        network: nn.Module = create(name, pretrained=pretrained, num_classes=1000, **arguments)
        return network

    try:
        try:
            return build(img_size=size)
        except TypeError:  # convolutional networks take images of any size, and have no such argument
            return build()
    except (ValueError, AssertionError) as error:
        raise InputError(f"backbone {PREFIX}{name} cannot be built for images of {size} px: {error}") from error


def _facts(network: nn.Module) -> dict[str, Any]:
    """Return what timm knows about the network's weights, also if they are not loaded."""
    return dict(network.pretrained_cfg)  # type: ignore[arg-type]


def _normalise_input(network: nn.Module) -> None:
    """Let the network take images that are normalised for ImageNet, whatever it was trained with."""
    facts = _facts(network)
    mean, std = facts.get("mean", _MEAN), facts.get("std", _STD)
    if tuple(mean) == _MEAN and tuple(std) == _STD:
        return
    ours, theirs = torch.tensor([_MEAN, _STD]), torch.tensor([mean, std])
    for name, value in {
        "input_scale": ours[1] / theirs[1],
        "input_shift": (ours[0] - theirs[0]) / theirs[1],
    }.items():
        # Not part of the weights, which other programs read too.
        network.register_buffer(name, value[:, None, None], persistent=False)
    network.register_forward_pre_hook(_renormalise)


def _renormalise(network: nn.Module, images: tuple[Tensor]) -> Tensor:
    scale, shift = network.get_buffer("input_scale"), network.get_buffer("input_shift")
    return images[0] * scale.to(images[0].dtype) + shift.to(images[0].dtype)
