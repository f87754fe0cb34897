"""Backbones with a head of their own, their weights, and the card that describes a saved model."""

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
