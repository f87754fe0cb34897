"""8-bit weights and activations for ONNX Runtime, and the recall that this costs in each domain."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastccsa.collections.stratify import stratified_subset
from fastccsa.evaluation import Scores, score
from fastccsa.export.agreement import DisagreementError, as_record
from fastccsa.export.model import Exported, describe
from fastccsa.export.onnx import require_onnx, save_onnx, to_onnx
from fastccsa.export.reference import COMPARED_ON, Batch, Reference
from fastccsa.export.runners import INPUT, ONNX_ENDING, OUTPUT, check_ending, open_session
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

CALIBRATION_IMAGES = 128
LARGEST_LOSS = 5.0
_PREPARED = "prepared"


def quantize(
    reference: Reference, path: str | os.PathLike[str], split: str = "test", largest_loss: float = LARGEST_LOSS
) -> tuple[Scores, Scores]:
    """Write a run's model as ONNX with 8-bit weights (per channel) and activations, and compare it with float32.

    The ranges of the activations come from 128 validation images of the domains that the run was trained on, spread as
    evenly as possible over classes and domains. Preprocessing that is part of the model is computed in float32. The
    float32 model is compared with PyTorch first, and the record of both comparisons is ``<path>.json``.

    Args:
        reference: the run's model, its manifest, and the images that the float32 model is compared on.
        path: file to write; its name must end in .onnx.
        split: name of the split that both models are scored on.
        largest_loss: how much recall 8 bits may cost, in points of macro-average recall of any domain.

    Returns:
        The scores of ONNX Runtime in float32 and in 8 bits.

    Raises:
        DisagreementError: the float32 model's logits are not PyTorch's, or 8 bits cost more; nothing is written.
        InputError: the file name is wrong, a package is missing, or there are no images to calibrate with or to score.
    """
    check_ending(path, ONNX_ENDING)
    require_onnx()
    manifest, card = reference.manifest, reference.card
    if manifest is None:
        raise InputError("8 bits are calibrated and scored on images: give a manifest")
    calibration = stratified_subset(manifest.select(COMPARED_ON, card.domains), CALIBRATION_IMAGES)
    with tempfile.TemporaryDirectory(prefix="fastccsa-") as folder, write_atomically(path) as file:
        full, network = Path(folder, "float32.onnx"), Path(folder, "network.onnx")
        save_onnx(reference.module, card, full, reference.preprocess)
        agreement = reference.compare(open_session(full))
        save_onnx(Exported(reference.module.model, card), card, network)
        _quantize_file(network, file, (batch.prepared for batch in reference.batches(calibration)))
        _prepend(reference, file)
        batches = reference.batches(manifest.select(split))
        before, after = _score([open_session(full), open_session(file)], batches, reference, split)
        _check_loss(before, after, largest_loss)
        figures = {
            "calibration": {"split": COMPARED_ON, "images": len(calibration)},
            "float32": asdict(before),
            "int8": asdict(after),
            "average_recall": {"float32": before.average, "int8": after.average},
        }
        reference.record(Path(path), as_record(agreement) | figures, file)
    return before, after


def losses(before: Scores, after: Scores) -> dict[str, float]:
    """Return by domain how much macro-average recall 8 bits cost, in points; negative if they gain."""
    return {
        name: 100 * (domain.macro_recall - after.domains[name].macro_recall) for name, domain in before.domains.items()
    }


def _check_loss(before: Scores, after: Scores, largest: float) -> None:
    too_much = {name: loss for name, loss in losses(before, after).items() if loss > largest}
    if too_much:
        text = ", ".join(f"{loss:.1f} points in {name}" for name, loss in too_much.items())
        raise DisagreementError(
            f"8 bits cost {text} of macro-average recall on the {before.split} images, and {largest:g} are allowed: "
            "not written (see --max-loss)"
        )


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


def _prepend(reference: Reference, path: Path) -> None:
    """Put the preprocessing that is part of the model in front of the network in an ONNX file, and its description."""
    import onnx
    from onnx import compose

    network = onnx.load(path)
    if reference.preprocess != "none":
        preparation = reference.module.prepare
        first = to_onnx(
            preparation, preparation.example(2), sizes=reference.preprocess == "all", output=_PREPARED
        ).model_proto
        # One name must not stand for two values: all of the network's get a prefix, except for its output.
        prefix = "network/"
        network = compose.add_prefix(network, prefix, rename_inputs=True, rename_outputs=False)
        first.ir_version = network.ir_version = max(first.ir_version, network.ir_version)
        network = compose.merge_models(first, network, io_map=[(_PREPARED, prefix + INPUT)], outputs=[OUTPUT])
    del network.metadata_props[:]
    for name, value in describe(reference.card, reference.preprocess).items():
        network.metadata_props.add(key=name, value=json.dumps(value))
    onnx.save(network, path)


def _score(
    functions: list[Callable[[Tensor], Tensor]], batches: Iterator[Batch], reference: Reference, split: str
) -> list[Scores]:
    """Score several functions from images to logits on the same images."""
    columns: list[list[Any]] = [[] for _ in range(2 + len(functions))]
    for batch in batches:
        predicted = [function(batch.inputs).argmax(1) for function in functions]
        for column, values in zip(columns, (batch.targets, batch.domains, *predicted), strict=True):
            column.append(values)
    targets, domains, *predictions = (torch.cat(column).numpy() for column in columns)
    manifest = reference.manifest
    assert manifest is not None
    return [score(targets, found, domains, manifest.classes, manifest.domains, split) for found in predictions]
