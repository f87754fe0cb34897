"""Trained models in formats that run without fastccsa: ONNX, 8-bit ONNX, torch.export."""

from __future__ import annotations

from typing import Any

__all__ = ["export_onnx", "export_program", "quantize"]

_HOME = {"export_onnx": "onnx", "export_program": "program", "quantize": "int8"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"fastccsa.export.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
