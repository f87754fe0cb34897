"""8-bit weights and activations for ONNX Runtime, and the recall that this costs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastccsa.collections import Manifest
from fastccsa.collections.stratify import stratified_subset
from fastccsa.evaluation import Scores, score
from fastccsa.evaluation.evaluate import evaluation_loader
from fastccsa.export.onnx import ONNX_ENDING, export_onnx, open_session, require_onnx
from fastccsa.export.program import INPUT, check_ending
from fastccsa.models import ModelCard
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

CALIBRATION_IMAGES = 128
_CPU = torch.device("cpu")


def quantize(
    run: str | os.PathLike[str],
    path: str | os.PathLike[str],
    manifest: Manifest,
    split: str = "test",
    workers: int = 0,
    image_backend: str = "auto",
) -> tuple[Scores, Scores]:
    """Write a run's model as ONNX with 8-bit weights (per channel) and activations, and compare it with float32.

    The ranges of the activations come from 128 training images, spread as evenly as possible over classes and domains.

    Args:
        run: run folder.
        path: file to write; its name must end in .onnx.
        manifest: its training images are used for calibration, and one of its splits for the comparison.
        split: name of that split.
        workers: number of threads that decode images; 0 lets the image pipeline choose.
        image_backend: native, dali, torchvision or auto; see `PairLoader`.

    Returns:
        The scores of ONNX Runtime in float32 and in 8 bits.

    Raises:
        InputError: there is no trained model, the file name is wrong, a package is missing, or there are no images to
            calibrate with or to score.
    """
    check_ending(path, ONNX_ENDING)
    require_onnx()
    card = ModelCard.read(run)
    if manifest.classes != card.classes:
        raise InputError(
            f"the manifest's classes {', '.join(manifest.classes)} are not the model's, {', '.join(card.classes)}"
        )
    calibration = stratified_subset(manifest.select("train", card.domains), CALIBRATION_IMAGES)

    def batches(images: Manifest) -> Iterator[dict[str, Tensor]]:
        with evaluation_loader(
            images, _CPU, card.size, batch_size=16, workers=workers, image_backend=image_backend
        ) as loader:
            yield from loader.epoch(0)

    with tempfile.TemporaryDirectory(prefix="fastccsa-") as folder:
        full = Path(folder) / "float32.onnx"
        export_onnx(run, full)
        with write_atomically(path) as file:
            _quantize_file(full, file, (batch["images"] for batch in batches(calibration)))
            sessions = [open_session(full), open_session(file)]
            before, after = _score(sessions, batches(manifest.select(split)), manifest, split)
    return before, after


def _quantize_file(source: Path, target: Path, images: Iterator[Tensor]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(images, None)
            return None if batch is None else {INPUT: batch.numpy()}

    prepared = source.with_name("prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )


def _score(
    functions: list[Callable[[Tensor], Tensor]], batches: Iterator[dict[str, Tensor]], manifest: Manifest, split: str
) -> list[Scores]:
    """Score several functions from images to logits on the same images."""
    columns: list[list[Any]] = [[] for _ in range(2 + len(functions))]
    for batch in batches:
        predicted = [function(batch["images"].contiguous()).argmax(1) for function in functions]
        for column, values in zip(columns, (batch["target"], batch["domain"], *predicted), strict=True):
            column.append(values)
    targets, domains, *predictions = (torch.cat(column).numpy() for column in columns)
    return [score(targets, found, domains, manifest.classes, manifest.domains, split) for found in predictions]
