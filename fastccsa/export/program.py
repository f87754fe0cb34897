"""torch.export: a run's model as a program that PyTorch runs without fastccsa."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import torch

from fastccsa.export.agreement import Agreement
from fastccsa.export.model import trace
from fastccsa.export.reference import Reference
from fastccsa.export.runners import PROGRAM_ENDING, check_ending, open_program


def export_program(reference: Reference, path: str | os.PathLike[str]) -> Agreement:
    """Write a run's model as a program of ``torch.export``: ``torch.export.load(path).module()(images)``.

    The record of the comparison, with the classes of the logits and the preprocessing, is ``<path>.json``.

    Args:
        reference: the run's model, and the images that the file is compared on.
        path: file to write; its name must end in .pt2.

    Returns:
        How the file's logits compare with the model's.

    Raises:
        DisagreementError: they differ by more than rounding; nothing is written.
        InputError: the file name is wrong.
    """
    check_ending(path, PROGRAM_ENDING)
    module = reference.module
    program = trace(module, module.prepare.example(2), sizes=reference.preprocess == "all")

    # Streams, not paths: torch requires the ending, which the temporary file does not have. torch's writer ends the
    # process if the disk is full, so it writes into memory.
    def save(file: Path) -> None:
        content = BytesIO()
        torch.export.save(program, content)
        file.write_bytes(content.getbuffer())

    return reference.write(path, save, open_program)
