"""ExecuTorch: a run's model for phones and other small devices, on the CPU through XNNPACK."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path

from fastccsa.export.agreement import Agreement
from fastccsa.export.choices import Preprocess
from fastccsa.export.model import Exported, trace
from fastccsa.export.reference import Reference
from fastccsa.export.runners import EXECUTORCH_ENDING, check_ending, open_executorch
from fastccsa.system.errors import InputError
from fastccsa.system.extras import require


def export_executorch(reference: Reference, path: str | os.PathLike[str]) -> Agreement:
    """Write a run's model for ExecuTorch, for one image at a time.

    The record of the comparison, with the classes of the logits and the preprocessing, is ``<path>.json``.

    Args:
        reference: the run's model, and the images that the file is compared on.
        path: file to write; its name must end in .pte.

    Returns:
        How the logits of ExecuTorch's runtime compare with PyTorch's.

    Raises:
        DisagreementError: they differ by more than rounding; nothing is written.
        InputError: the file name is wrong, a package is missing, or resizing is part of the model: ExecuTorch plans
            memory for images of one size.
    """
    check_executorch(path, reference.preprocess)
    return reference.write(path, lambda file: save_executorch(reference.module, file), open_executorch)


def check_executorch(path: str | os.PathLike[str], preprocess: Preprocess) -> None:
    """Check that a run's model can be written for ExecuTorch.

    Raises:
        InputError: as for `export_executorch`.
    """
    check_ending(path, EXECUTORCH_ENDING)
    if preprocess == "all":
        raise InputError("ExecuTorch plans memory for images of one size: export with preprocess none or normalise")
    require("executorch")


def save_executorch(module: Exported, path: Path) -> None:
    """Write a model for ExecuTorch, without comparing its outputs."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the compiler logs its passes, and its imports warn
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            program = trace(module, module.prepare.example(1), sizes=False, count=1)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            path.write_bytes(lowered.to_executorch().buffer)
    finally:
        logging.disable(before)
