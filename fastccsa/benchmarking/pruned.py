"""A pruned run beside the run it was made of: size, recall, latency, and what other thresholds would have kept."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torchvision.models.resnet import Bottleneck

from fastccsa.benchmarking.timing import interleaved
from fastccsa.evaluation import Scores
from fastccsa.export.onnx import export_onnx, open_session, require_onnx
from fastccsa.export.program import Exported, read_run
from fastccsa.models import MODEL_FILE, Classifier, load_model
from fastccsa.pruning.record import PruneRecord
from fastccsa.pruning.resnet import blocks_of
from fastccsa.runs.folder import finished_scores
from fastccsa.system.files import write_atomically

THRESHOLDS = tuple(10 ** (exponent / 4) for exponent in range(-24, -3))  # 1e-6 to 0.1
THREADS, BATCHES = (1, 2), (1, 32)


@dataclass(frozen=True)
class Latency:
    """Time of one call.

    Attributes:
        model: before or after the pruning.
        engine: PyTorch or ONNX Runtime.
        threads, batch: threads it may use, images at once.
        seconds: the time in each round.
    """

    model: str
    engine: str
    threads: int
    batch: int
    seconds: list[float]

    @property
    def median(self) -> float:
        """The median time in seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class PruneReport:
    """What `report_pruning` found.

    Attributes:
        record: the pruning.
        file_bytes: sizes of model.safetensors before and after.
        recall: macro recall by domain and ``avg``, in [0, 1], of the run that was pruned, of the selected channels
            before fine-tuning, and after; those that are there.
        latency: one entry for each model, engine, number of threads and of images.
        curve: parameters of the whole network by threshold, along the paths of this pruning.
    """

    record: PruneRecord
    file_bytes: tuple[int, int]
    recall: dict[str, dict[str, float]]
    latency: list[Latency]
    curve: list[tuple[float, int]]

    def write(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write JSON, with ``about`` (machine, versions, command) in front."""
        with write_atomically(path) as file:
            file.write_text(json.dumps({**about, **asdict(self)}) + "\n")


def report_pruning(run: str | os.PathLike[str], rounds: int = 30, seconds: float = 60.0) -> PruneReport:
    """Measure a pruned run beside the run it was made of; every latency in one interleaved run.

    Args:
        run: folder of the pruned run.
        rounds: rounds of the latencies at most.
        seconds: budget for them.

    Raises:
        InputError: it is no pruned run, the run it was made of is gone, or a package is missing.
    """
    require_onnx()
    folder = Path(run)
    record = PruneRecord.read(folder)
    before = Path(record.config["run"])
    folders = {"before": before, "selected": folder / "selected", "after": folder}
    scores = {name: found for name, place in folders.items() if (found := finished_scores(place)) is not None}
    original = load_model(before)
    return PruneReport(
        record=record,
        file_bytes=(_bytes(before), _bytes(folder)),
        recall={name: _recalls(found) for name, found in scores.items()},
        latency=_latencies({"before": before, "after": folder}, rounds, seconds),
        curve=[(threshold, parameters_at(original, record.kept_at(threshold))) for threshold in THRESHOLDS],
    )


def parameters_at(model: Classifier, kept: Mapping[str, int]) -> int:
    """Count the parameters of ``model`` with only ``kept`` input channels in its prunable layers."""
    total = sum(parameter.numel() for parameter in model.parameters())
    for name, block in blocks_of(model):
        convs = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, Bottleneck) else [])]
        names = [f"{name}.conv{number}" for number in range(2, len(convs) + 1)]
        own = [conv.out_channels for conv in convs[:-1]]
        fewer = [kept[layer] for layer in names]
        for widths, sign in ((own, -1), (fewer, 1)):
            channels = [convs[0].in_channels, *widths, convs[-1].out_channels]
            pairs = zip(convs, channels[:-1], channels[1:], strict=True)
            weights = sum(a * b * conv.kernel_size[0] * conv.kernel_size[1] for conv, a, b in pairs)
            total += sign * (weights + 2 * sum(widths))
    return total


def _bytes(run: Path) -> int:
    return (run / MODEL_FILE).stat().st_size


def _recalls(scores: Scores) -> dict[str, float]:
    return {name: domain.macro_recall for name, domain in scores.domains.items()} | {"avg": scores.average}


def _latencies(runs: Mapping[str, Path], rounds: int, seconds: float) -> list[Latency]:
    threads_before = torch.get_num_threads()
    calls: dict[tuple[str, str, int, int], Callable[[], object]] = {}
    with tempfile.TemporaryDirectory(prefix="fastccsa-") as scratch:
        for name, run in runs.items():
            module, _ = read_run(run)
            file = Path(scratch) / f"{name}.onnx"
            export_onnx(run, file)
            for threads in THREADS:
                session = open_session(file, threads)
                for batch in BATCHES:
                    images = module.example(batch)
                    calls[name, "PyTorch", threads, batch] = _in_torch(module, images, threads)
                    calls[name, "ONNX Runtime", threads, batch] = partial(session, images)
        for call in calls.values():
            call()
        keys = {" ".join(map(str, key)): key for key in calls}
        try:
            times = interleaved({text: calls[key] for text, key in keys.items()}, rounds, seconds)
        finally:
            torch.set_num_threads(threads_before)
    return [Latency(*key, times[text].seconds) for text, key in keys.items()]


def _in_torch(module: Exported, images: torch.Tensor, threads: int) -> Callable[[], object]:
    def call() -> object:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return module(images)

    return call


def as_text(report: PruneReport) -> str:
    """Print the report as tables."""
    record = report.record
    lines = [
        f"{'':24} {'before':>10} {'after':>10} {'ratio':>6}",
        _row("parameters, M", record.before.parameters / 1e6, record.after.parameters / 1e6),
        _row("multiply-adds, M", record.before.multiply_adds / 1e6, record.after.multiply_adds / 1e6),
        _row("file, MB", *(size / 1e6 for size in report.file_bytes)),
    ]
    medians = {(x.model, x.engine, x.threads, x.batch): 1000 * x.median for x in report.latency}
    for model, engine, threads, batch in medians:
        if model == "before":
            what = f"{engine}, {batch} im., {threads} thr., ms"
            lines.append(_row(what, medians[model, engine, threads, batch], medians["after", engine, threads, batch]))
    lines += ["", "macro-average recall in %, test images"]
    for name, recalls in report.recall.items():
        cells = "  ".join(f"{domain} {100 * value:5.1f}" for domain, value in recalls.items())
        lines.append(f"{name:>9}  {cells}")
    lines += ["", "channels kept"]
    lines += [f"{layer.name:>16} {len(layer.kept):5} of {layer.channels}" for layer in record.layers]
    lines += ["", "threshold: parameters, M (along the paths of this pruning)"]
    lines += [f"{threshold:9.1e}: {count / 1e6:.2f}" for threshold, count in report.curve]
    return "\n".join(lines)


def _row(what: str, before: float, after: float) -> str:
    return f"{what:<24} {before:10.2f} {after:10.2f} {after / before:6.2f}"


def draw(report: PruneReport, path: Path) -> None:
    """Draw the share of channels kept by layer, and the parameters by threshold; .svg or .png."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = report.record.layers
    left.bar([layer.name for layer in layers], [100 * len(layer.kept) / layer.channels for layer in layers])
    left.set_ylabel("input channels kept, %")
    left.tick_params(axis="x", rotation=70)
    right.plot(*zip(*((threshold, count / 1e6) for threshold, count in report.curve), strict=True))
    right.set_xscale("log")
    right.set_xlabel("threshold")
    right.set_ylabel("parameters, M")
    with write_atomically(path) as file:
        figure.savefig(file, format=path.suffix.removeprefix("."))
