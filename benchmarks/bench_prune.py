"""A pruned run compared with the run it was made from: latency, and the savings of the pruning."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import benchmark
from benchmarks.harness.results import OURS, RIVAL, Row
from benchmarks.pruning_report import as_text, report_pruning
from fastccsa.export.model import read_run
from fastccsa.export.onnx import require_onnx, save_onnx
from fastccsa.export.runners import open_session
from fastccsa.pruning.record import PruneRecord

ENGINES, THREADS, BATCHES = ("PyTorch", "ONNX Runtime"), (1, 2), (1, 32)


@dataclass(frozen=True)
class Cell:
    """An engine, a number of threads, and a batch size with which both networks are called."""

    engine: str
    threads: int
    batch: int

    @property
    def title(self) -> str:
        return f"{self.engine}, {self.batch} image(s), {self.threads} thread(s)"


class Benchmark(benchmark.Benchmark):
    """Measures both networks on the CPU."""

    def cells(self) -> list[Cell]:
        if not self.options.run:
            return []
        require_onnx()
        PruneRecord.read(self.options.run[-1])
        return [Cell(engine, threads, batch) for engine in ENGINES for threads in THREADS for batch in BATCHES]

    def names(self) -> Sequence[str]:
        return ("before", "after")

    def measure(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        after, threads = self.options.run[-1], torch.get_num_threads()
        runs = {"before": Path(PruneRecord.read(after).config["run"]), "after": after}
        rows = [Row(name, OURS if name == "after" else RIVAL) for name in names]
        torch.set_num_threads(cell.threads)
        try:
            self.race([(row, self.calls(_call(runs[row.contestant], cell))) for row in rows])
        finally:
            torch.set_num_threads(threads)
        return rows


def _call(run: Path, cell: Cell) -> Callable[[], Any]:
    module, card = read_run(run)
    images = module.prepare.example(cell.batch)
    if cell.engine == "PyTorch":
        return torch.inference_mode()(partial(module, images))
    with tempfile.TemporaryDirectory(prefix="fastccsa-") as scratch:
        save_onnx(module, card, Path(scratch, "model.onnx"))
        return partial(open_session(Path(scratch, "model.onnx"), cell.threads), images)


def test_latency(report):
    report()


def test_report(measuring, recorder):
    found = recorder.results.report["prune"] = report_pruning(measuring.options.run[-1])
    recorder.texts.append(as_text(found))
