"""Backbones with a head of their own, their weights, and the card that describes a saved model."""

from fastccsa.models.backbone import Classifier, ModelCard, build_model, load_model, load_weights, save_model

__all__ = ["Classifier", "ModelCard", "build_model", "load_model", "load_weights", "save_model"]
