"""Initial weights of a model: torchvision's ImageNet weights, and weights from files."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torchvision.models
from torch import Tensor

from fastccsa.models.tensor_files import read_tensors
from fastccsa.models.torch_files import check_content, check_digest, read_torch
from fastccsa.system.errors import InputError

if TYPE_CHECKING:
    from fastccsa.models.backbone import Classifier

MODEL_FILE = "model.safetensors"
DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer after which a download has failed

# Auxiliary classifiers of some networks. Weight files have them; a `Classifier` does not.
AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


def imagenet_weights(name: str) -> Any:
    """Return torchvision's ImageNet weights of a network: IMAGENET1K_V1 if it exists, else the default ones."""
    weights = torchvision.models.get_model_weights(name)
    return getattr(weights, "IMAGENET1K_V1", weights.DEFAULT)


def download(weights: Any) -> None:
    """Download `imagenet_weights` into torch's cache, unless they are there already.

    Raises:
        OSError, RuntimeError: the download failed, or the file is not the published one.
    """
    with _download_timeout():
        weights.get_state_dict(progress=sys.stderr.isatty(), check_hash=True)


@contextmanager
def _download_timeout() -> Iterator[None]:
    """Limit the wait for each answer within the block: if a firewall drops packets, torch.hub would wait forever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def load_weights(model: Classifier, path: str | os.PathLike[str], head: bool = True) -> bool:
    """Load weights into ``model``; the file must have every weight of its backbone.

    Args:
        model: the model, changed in place.
        path: a run folder, a ``.safetensors`` file, a checkpoint of a run, or a state dict saved by ``torch.save``,
            with the names of a `Classifier`, of the network of torchvision or timm itself, or of what timm can convert,
            such as the published files of DINOv2 and DINOv3.
        head: also load the head, if the file has one of the same shape.

    Returns:
        Whether the head was loaded.

    Raises:
        InputError: the file is missing, unreadable, would run code when unpickled, or belongs to another network.
    """
    path = Path(path)
    file = path / MODEL_FILE if path.is_dir() else path
    state = _read_state(file)
    if not any(key.startswith("backbone.") for key in state):
        if type(model.backbone).__module__.startswith("timm."):
            state = _of_timm(model, state, file)
        dropped = (model.replaced, *(name for names in AUXILIARY.values() for name in names))
        prefixes = tuple(f"{name}." for name in dropped)
        state = {f"backbone.{key}": value for key, value in state.items() if not key.startswith(prefixes)}
    own = model.state_dict()
    head_keys = ("head.weight", "head.bias")
    with_head = head and all(key in state and _is_like(state[key], own[key]) for key in head_keys)
    backbone = {key: value for key, value in state.items() if key not in head_keys}
    for key in sorted((own.keys() - set(head_keys)) | backbone.keys()):
        if key not in own or key not in backbone or not _is_like(backbone[key], own[key]):
            raise InputError(f"{file} holds weights of another network: they differ at {key}")
    # The model's own state dict also has the format versions that some networks need.
    own.update(backbone)
    if with_head:
        own.update({key: state[key] for key in head_keys})
    model.load_state_dict(own)
    return with_head


def _of_timm(model: Classifier, state: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    from fastccsa.models.timm_networks import convert_weights

    try:
        return convert_weights(model.backbone, state)
    except InputError as error:
        raise InputError(f"{file} holds weights of another network: {error}") from error


def _is_like(tensor: Tensor, own: Tensor) -> bool:
    """Whether a weight can be loaded: in another precision at most."""
    return tensor.shape == own.shape and tensor.is_floating_point() == own.is_floating_point()


def _read_state(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise InputError(f"no weights at {file}: give a run folder with {MODEL_FILE}, or a weights file")
    try:
        if file.suffix == ".safetensors":
            return read_tensors(file)[0]
        state = read_torch(file, legacy=True)
        if isinstance(state, dict) and isinstance(state.get("model"), dict):  # a checkpoint
            check_content(state)
            check_digest(state)
            state = state["model"]
        if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
            check_content(state)
            return {str(key): value for key, value in state.items()}
    except (OSError, InputError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise InputError(f"{file} is not a readable weights file: {reason}") from error
    raise InputError(f"{file} holds no state dict: save one with torch.save(model.state_dict(), path)")
