"""Saving and loading a model with its card, which describes its inputs and logits."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated

from torch import Tensor

from fastccsa.models.backbone import Classifier, build_model
from fastccsa.models.narrow import Layers
from fastccsa.models.tensor_files import write_tensors
from fastccsa.models.weights import MODEL_FILE, load_weights
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.ranges import Range
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.schema import Filled, Mismatch, build

CARD_FILE = "model.json"
LARGEST_SIZE = 16384  # pixels
Deviation = Annotated[float, Range(1e-6)]


@dataclass(frozen=True)
class ModelCard:
    """The facts needed to use a model's weights; ``model.json`` in a run folder.

    Attributes:
        backbone: name of the network, as in `build_model`.
        classes: names of the classes, in the order of the logits.
        domains: keys of the domains that the model was trained on.
        size: side length of the input images in pixels.
        mean, std: normalisation of the input images by channel, for values in [0, 1].
        layers: layers of a pruned backbone that are narrower than its own, by name; see `fastccsa.models.narrow`.
    """

    backbone: str
    classes: Annotated[tuple[str, ...], Filled()]
    domains: tuple[str, ...]
    size: Annotated[int, Range(1, LARGEST_SIZE)]
    mean: tuple[float, float, float]
    std: tuple[Deviation, Deviation, Deviation]
    layers: Layers = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes):
            raise Mismatch("classes has one name twice")

    @staticmethod
    def read(path: str | os.PathLike[str]) -> ModelCard:
        """Read the card in a run folder, or the one next to a weights file.

        Raises:
            InputError: the card is missing or incomplete.
        """
        path = Path(path)
        file = (path if path.is_dir() else path.parent) / CARD_FILE
        try:
            with reported(file, "is not a model card", "train the run again, or restore the file"):
                return build(ModelCard, load_json(read_bytes(file)))
        except FileNotFoundError as error:
            raise InputError(f"no trained model in {path}: {CARD_FILE} is missing; train it first") from error


def save_model(folder: str | os.PathLike[str], model: Classifier, card: ModelCard) -> None:
    """Write ``model.safetensors`` and ``model.json`` into ``folder``, each completely or not at all.

    The card's ``layers`` are taken from the model.

    Raises:
        InputError: the folder cannot be written.
    """
    save_weights(Path(folder), model.state_dict(), replace(card, layers=model.layers))


def save_weights(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a model as `save_model` does, given its state dict, and its card with the model's ``layers``."""
    values = asdict(card)
    if not card.layers:
        del values["layers"]
    with write_atomically(folder / CARD_FILE) as file:
        file.write_text(json.dumps(values, indent=2) + "\n")
    write_tensors(folder / MODEL_FILE, weights)


def load_model(path: str | os.PathLike[str]) -> Classifier:
    """Load the best model of a run folder (or a ``model.safetensors``) on the CPU, in evaluation mode.

    Args:
        path: the run folder, or the weights file with its ``model.json`` next to it.

    Returns:
        The model, which maps float32 images [N, 3, size, size] to (logits [N, C], features [N, D]).

    Raises:
        InputError: there is no model, or its weights do not match its card.
    """
    card = ModelCard.read(path)
    try:
        model = build_model(card.backbone, len(card.classes), weights="none", size=card.size)
        model.narrow(card.layers)
    except InputError as error:
        raise InputError(f"{path}: no model can be built from its {CARD_FILE}: {error}") from error
    if not load_weights(model, path):
        raise InputError(f"{path} has another number of classes than its {CARD_FILE} says")
    return model.eval()
