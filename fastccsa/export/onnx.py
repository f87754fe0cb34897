"""ONNX: a run's model for ONNX Runtime, with a description of the preprocessing in the file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastccsa.export.program import INPUT, OUTPUT, check_ending, read_run, trace, write_checked
from fastccsa.images import Transforms
from fastccsa.models import ModelCard
from fastccsa.system.extras import require

ONNX_ENDING = ".onnx"
OPSET = 18


def require_onnx() -> None:
    """Check that the packages that write and run ONNX files are installed.

    Raises:
        InputError: a package is missing; the message has the pip command.
    """
    require("onnx", "onnxscript", "onnxruntime")


def export_onnx(run: str | os.PathLike[str], path: str | os.PathLike[str], pixels: bool = False) -> float:
    """Write a run's model as ONNX: ``images`` to ``logits``, for any number of images at once.

    The file's ``metadata_props`` have ``classes``, ``domains`` and ``preprocessing``, each as JSON.

    Args:
        run: run folder.
        path: file to write; its name must end in .onnx.
        pixels: take uint8 pixels instead of normalised images (see `Exported`).

    Returns:
        The largest difference between ONNX Runtime's logits and PyTorch's, relative to the largest logit.

    Raises:
        InputError: there is no trained model, the file name is wrong, or a package is missing.
    """
    check_ending(path, ONNX_ENDING)
    require_onnx()
    module, card = read_run(run, pixels)
    program = to_onnx(trace(module))
    for name, value in describe(card, pixels).items():
        program.model.metadata_props[name] = json.dumps(value)
    return write_checked(path, module, program.save, open_session)


def to_onnx(program: torch.export.ExportedProgram) -> Any:
    """Convert a traced model, without the converter's output on the terminal."""
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
                output_names=[OUTPUT],
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def describe(card: ModelCard, pixels: bool) -> dict[str, Any]:
    """Describe the classes of the logits and the preprocessing of an image, which is that of evaluation."""
    transforms = Transforms(size=card.size)
    resize = transforms.resize
    offset = transforms.crop_offset + transforms.evaluation_offset
    steps: list[dict[str, Any]] = [
        {"step": "decode", "colour": "RGB", "orientation": "upright"},
        {"step": "resize", "height": resize, "width": resize, "keep_aspect": False, "filter": "bilinear, antialiased"},
        {"step": "crop", "top": offset, "left": offset, "height": card.size, "width": card.size},
    ]
    if not pixels:
        steps += [
            {"step": "scale", "multiply_by": 1 / 255},
            {"step": "normalise", "mean": list(card.mean), "std": list(card.std)},
            {"step": "transpose", "to": "NCHW"},
        ]
    return {"classes": list(card.classes), "domains": list(card.domains), "preprocessing": steps}


def open_session(path: str | os.PathLike[str], threads: int = 0) -> Callable[[Tensor], Tensor]:
    """Open an ONNX file in ONNX Runtime on the CPU, as a function from images to logits.

    Args:
        path: the file.
        threads: number of threads of a call; 0 lets ONNX Runtime choose.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(np.asarray(logits))

    return run
