"""ONNX: a run's model for ONNX Runtime, with a description of the preprocessing in the file."""

from __future__ import annotations

import json
import logging
import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastccsa.export.agreement import Agreement
from fastccsa.export.choices import Preprocess
from fastccsa.export.model import Exported, describe, trace
from fastccsa.export.reference import Reference
from fastccsa.export.runners import INPUT, ONNX_ENDING, OUTPUT, check_ending, open_session
from fastccsa.models import ModelCard
from fastccsa.system.extras import require

OPSET = 18


def require_onnx() -> None:
    """Check that the packages that write and run ONNX files are installed.

    Raises:
        InputError: a package is missing; the message has the pip command.
    """
    require("onnx", "onnxscript", "onnxruntime")


def export_onnx(reference: Reference, path: str | os.PathLike[str]) -> Agreement:
    """Write a run's model as ONNX: ``images`` to ``logits``, for any number of images at once.

    The file's ``metadata_props`` have ``classes``, ``domains`` and ``preprocessing``, each as JSON. The record of the
    comparison is ``<path>.json``.

    Args:
        reference: the run's model, and the images that the file is compared on.
        path: file to write; its name must end in .onnx.

    Returns:
        How the logits of ONNX Runtime compare with PyTorch's.

    Raises:
        DisagreementError: they differ by more than rounding; nothing is written.
        InputError: the file name is wrong, or a package is missing.
    """
    check_ending(path, ONNX_ENDING)
    require_onnx()
    return reference.write(
        path, lambda file: save_onnx(reference.module, reference.card, file, reference.preprocess), open_session
    )


def save_onnx(module: Exported, card: ModelCard, path: Path, preprocess: Preprocess = "none") -> None:
    """Write a model as ONNX, without comparing its outputs."""
    program = to_onnx(module, module.prepare.example(2), sizes=preprocess == "all")
    for name, value in describe(card, preprocess).items():
        program.model.metadata_props[name] = json.dumps(value)
    program.save(path)


def to_onnx(module: nn.Module, example: Tensor, sizes: bool, output: str = OUTPUT) -> Any:
    """Convert a module, without the converter's output on the terminal; see `trace` for the arguments."""
    program = trace(module, example, sizes)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            return torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[output],
                verbose=False,
            )
    finally:
        logger.setLevel(level)
