"""Trained models in formats that run without fastccsa: ONNX, 8-bit ONNX, torch.export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.export.int8 import quantize
    from fastccsa.export.onnx import export_onnx
    from fastccsa.export.program import export_program

__all__ = ["export_onnx", "export_program", "quantize"]

__getattr__ = lazy_names(
    __name__,
    {
        "export_onnx": "fastccsa.export.onnx",
        "export_program": "fastccsa.export.program",
        "quantize": "fastccsa.export.int8",
    },
)
