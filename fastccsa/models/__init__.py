"""Classifiers built from torchvision networks, their weights, and the card that describes a saved model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.models.backbone import Classifier, build_model
    from fastccsa.models.card import CARD_FILE, ModelCard, load_model, save_model
    from fastccsa.models.narrow import Layers, describe_layer
    from fastccsa.models.weights import MODEL_FILE, load_weights

__all__ = [
    "CARD_FILE",
    "MODEL_FILE",
    "Classifier",
    "Layers",
    "ModelCard",
    "build_model",
    "describe_layer",
    "load_model",
    "load_weights",
    "save_model",
]

# Torchvision and safetensors are imported on first use, so that the error about a missing one names its extra.
__getattr__ = lazy_names(
    __name__,
    {
        "CARD_FILE": "fastccsa.models.card",
        "MODEL_FILE": "fastccsa.models.weights",
        "Classifier": "fastccsa.models.backbone",
        "Layers": "fastccsa.models.narrow",
        "ModelCard": "fastccsa.models.card",
        "build_model": "fastccsa.models.backbone",
        "describe_layer": "fastccsa.models.narrow",
        "load_model": "fastccsa.models.card",
        "load_weights": "fastccsa.models.weights",
        "save_model": "fastccsa.models.card",
    },
)
