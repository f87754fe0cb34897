"""Backbones with a head of their own, their weights, and the card that describes a saved model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.models.backbone import Classifier, ModelCard, build_model, load_model, load_weights, save_model

__all__ = ["Classifier", "ModelCard", "build_model", "load_model", "load_weights", "save_model"]

__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "fastccsa.models.backbone"))
