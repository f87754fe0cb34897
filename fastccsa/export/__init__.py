"""Trained models in formats that run without fastccsa: ONNX, 8-bit ONNX, torch.export, ExecuTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.export.agreement import Agreement, DisagreementError
    from fastccsa.export.executorch import export_executorch
    from fastccsa.export.int8 import quantize
    from fastccsa.export.latency import Latency, measure
    from fastccsa.export.onnx import export_onnx
    from fastccsa.export.program import export_program
    from fastccsa.export.reference import Reference

__all__ = [
    "Agreement",
    "DisagreementError",
    "Latency",
    "Reference",
    "export_executorch",
    "export_onnx",
    "export_program",
    "measure",
    "quantize",
]

__getattr__ = lazy_names(
    __name__,
    {
        "Agreement": "fastccsa.export.agreement",
        "DisagreementError": "fastccsa.export.agreement",
        "Latency": "fastccsa.export.latency",
        "Reference": "fastccsa.export.reference",
        "export_executorch": "fastccsa.export.executorch",
        "export_onnx": "fastccsa.export.onnx",
        "export_program": "fastccsa.export.program",
        "measure": "fastccsa.export.latency",
        "quantize": "fastccsa.export.int8",
    },
)
