"""The zipped loss beside its rivals, for pytest-benchmark's comparisons between runs.

    python -m pytest benchmarks/bench_zipped.py
    python -m pytest benchmarks/bench_zipped.py --benchmark-save=before    then, after a change:
    python -m pytest benchmarks/bench_zipped.py --benchmark-compare=*before -k fastccsa

A group is a cell; the numbers in brackets are times in times of the group's fastest. Contestants run one after another
here, so for figures to publish use `fastccsa bench zipped`, which runs them in turns. FASTCCSA_BENCH_DEVICE=cuda
measures on a GPU; FASTCCSA_BENCH_THREADS sets torch's threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from fastccsa.benchmarking.zipped import BACKWARD, FORWARD, Cell
from fastccsa.benchmarking.zipped.floors import CALL, LAUNCHES, STREAMS, floors
from fastccsa.benchmarking.zipped.problem import Problem
from fastccsa.benchmarking.zipped.rivals import RIVALS, CannotExpress, Rival, call_of

DEVICE = torch.device(os.environ.get("FASTCCSA_BENCH_DEVICE", "cpu"))
CELLS = [
    Cell(32),
    Cell(32, mode=FORWARD),
    Cell(32, weighted=False),
    Cell(256, classes=1000),
    Cell(4096, width=2048),
    Cell(65536, width=128, dtype="bfloat16"),
    Cell(65536),
]


def synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


@pytest.fixture(scope="module", autouse=True)
def threads() -> None:
    if "FASTCCSA_BENCH_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["FASTCCSA_BENCH_THREADS"]))


@pytest.fixture(scope="module", params=CELLS, ids=lambda cell: cell.title.replace(", ", "-").replace(" ", "-"))
def cell(request: pytest.FixtureRequest) -> Cell:
    return request.param


@pytest.fixture(scope="module")
def problem(cell: Cell) -> Iterator[Problem]:
    torch.compiler.reset()
    torch.set_grad_enabled(cell.mode == BACKWARD)
    yield Problem.of(cell, DEVICE)
    torch.set_grad_enabled(True)


def measure(benchmark, call, group: str) -> None:
    def run() -> None:
        call()
        synchronize()

    run()  # compiles
    benchmark.group = group
    benchmark(run)


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name.replace(" ", "-"))
def test_loss(benchmark, cell: Cell, problem: Problem, rival: Rival) -> None:
    try:
        function = rival.build(problem, cell)
    except CannotExpress as reason:
        pytest.skip(str(reason))
    benchmark.extra_info["note"] = function.note
    measure(benchmark, call_of(function.call, problem, cell), cell.title)


@pytest.mark.parametrize("floor", [*STREAMS, LAUNCHES, CALL], ids=lambda name: name.replace(" ", "-"))
def test_floor(benchmark, cell: Cell, problem: Problem, floor: str) -> None:
    call = floors(problem, cell).get(floor)
    if call is None:
        pytest.skip(f"no floor on {DEVICE.type}")
    measure(benchmark, call, cell.title)
