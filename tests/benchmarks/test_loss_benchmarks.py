"""The benchmarks of both losses: contestants that fail, budgets, and compiled functions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.harness.benchmark import CannotRun
from benchmarks.harness.results import Results, Row
from benchmarks.losses import zipped
from benchmarks.losses.common import Contestant, LossFunction
from benchmarks.losses.zipped import BACKWARD, FORWARD, SWEEP, Benchmark, Cell
from benchmarks.losses.zipped_contestants import CONTESTANTS, FORMULATIONS
from fastccsa.system import machine

EAGER = "eager PyTorch"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def zipped_benchmark(options):
    """A benchmark of fastccsa and some contestants, or eager PyTorch; with the rows of a cell by name."""

    class Tried(Benchmark):
        def rows(self, cell: Cell) -> dict[str, Row]:
            return {row.contestant: row for row in self.measure(cell, self.names())}

    def make(*others: Contestant, **given: object) -> Tried:
        made = Tried(options("zipped", **({} if others else {"rival": (EAGER,)}) | given))
        made.contestants = (CONTESTANTS[0], *others) if others else CONTESTANTS
        return made

    return make


def test_modes_share_their_data_and_forward_has_no_gradients(zipped_benchmark) -> None:
    benchmark = zipped_benchmark()
    both, forward = (benchmark.rows(Cell(8, 4, 3, mode=mode)) for mode in (BACKWARD, FORWARD))
    assert both[EAGER].loss_error == pytest.approx(forward[EAGER].loss_error, abs=1e-6)
    assert forward[EAGER].gradient_error is None
    assert forward[EAGER].peak_bytes < both[EAGER].peak_bytes
    assert torch.is_grad_enabled()
    assert "torch.compile" not in both


def test_contestants_that_do_not_fit_are_skipped(zipped_benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda device: 10**6)
    benchmark = zipped_benchmark()
    assert benchmark.rows(Cell(8, 4, 3))["fastccsa"].seconds
    large = benchmark.rows(Cell(10**7, 512))
    assert set(large) == {"fastccsa", EAGER}
    for row in large.values():
        assert not row.seconds
        assert row.not_measured.startswith("does not fit: needs about ")


def test_a_rival_that_does_not_fit_leaves_the_others(zipped_benchmark) -> None:
    rows = zipped_benchmark(Contestant("hungry", CONTESTANTS[0].build, lambda cell: math.inf)).rows(Cell(8, 4, 3))
    assert rows["hungry"].not_measured.startswith("does not fit")
    assert rows["fastccsa"].seconds


def test_no_cell_begins_when_the_time_is_over(zipped_benchmark) -> None:
    rows = zipped_benchmark(minutes=0).rows(Cell(8, 4, 3))
    assert {row.not_measured for row in rows.values()} == {"the time budget of 0 minutes was used up"}


def test_a_contestant_that_fails_is_named_and_the_others_continue(zipped_benchmark) -> None:
    def explode(*arguments: object) -> torch.Tensor:
        raise RuntimeError("no such kernel\nat this address")

    def unable(problem: object, cell: Cell) -> LossFunction:
        raise CannotRun("cannot express: anything")

    rows = zipped_benchmark(
        Contestant("broken", lambda problem, cell: LossFunction(explode), lambda cell: 0),
        Contestant("unfit", unable, lambda cell: 0),
    ).rows(Cell(8, 4, 3))
    assert rows["broken"].not_measured == "failed: RuntimeError: no such kernel"
    assert rows["unfit"].not_measured == "cannot express: anything"
    assert rows["fastccsa"].seconds


def test_large_sizes_of_a_sweep_share_a_compiled_graph(zipped_benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(cells: list[Cell]) -> set[Cell]:
        monkeypatch.setattr(Benchmark, "cells", lambda self: cells)
        benchmark = zipped_benchmark()
        return {scope for scope in map(benchmark.scope, cells) if scope.pairs == 0}

    assert shared([Cell(32), Cell(65536)]) == set()
    assert shared([Cell(65536), Cell(65536, mode=FORWARD)]) == set()
    assert shared([Cell(4096), Cell(65536), Cell(65536, 128)]) == {Cell(0)}
    assert len(shared(SWEEP)) == 3 * 2 * 2


def test_one_graph_serves_several_sizes(zipped_benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of compilations is checked too: torch counts the graphs."""
    from torch._dynamo.utils import counters

    def build(problem: object, cell: Cell) -> LossFunction:
        options = {"backend": "aot_eager", "fullgraph": True, "dynamic": False}  # without torch's slow code generator
        return LossFunction(torch.compile(FORMULATIONS["vector_norm"], **options), "plain")

    cells = [Cell(n, 4, 3) for n in (3, 10, 20, 30)]
    monkeypatch.setattr(zipped, "MANY_PAIRS", 8)
    monkeypatch.setattr(Benchmark, "cells", lambda self: cells)
    benchmark = zipped_benchmark(Contestant("compiled", build, lambda cell: 0, compiled=True))
    counters.clear()
    rows = [benchmark.rows(cell)["compiled"] for cell in cells]
    assert counters["stats"]["unique_graphs"] == 2  # for 3 pairs, and for many
    assert [row.not_measured for row in rows] == [None] * 4
    assert [row.note for row in rows] == ["plain", *["plain; any N"] * 3]


@pytest.fixture
def run_two_cells(bench, tmp_path: Path):
    """Run cells of 8 and 9 pairs under pytest, with a method of the benchmark replaced."""

    def run(method: str, status: int, *more: str) -> tuple[str, Results]:
        (tmp_path / "conftest.py").write_text("from benchmarks.conftest import *\n")
        (tmp_path / "bench_zipped.py").write_text(
            "import os\n"
            "from benchmarks.harness.results import Row\n"
            "from benchmarks.losses import zipped\n\n\n"
            f"class Benchmark(zipped.Benchmark):\n    {method}\n\n\n"
            "def test_zipped(report):\n    report()\n"
        )
        sizes = ("--pairs=8", "--pairs=9", "--width=4", "--rival=fastccsa.reference", "--rounds=3", "--seconds=0")
        files = (str(tmp_path / "bench_zipped.py"), f"--rootdir={tmp_path}", f"--out={tmp_path / 'results.json'}")
        result = bench("-q", "-p", "no:cacheprovider", *files, *sizes, *more, status=status, module="pytest")
        return result.stdout, Results.read(tmp_path / "results.json")

    return run


BUILD = "def build(self, one, problem, cell): return super().build(one, problem, cell) if {} else {}"


def test_pytest_benchmark_gets_the_times_that_were_measured(run_two_cells, tmp_path: Path) -> None:
    seconds, theirs = [0.5, 0.0625, 3.0], tmp_path / "theirs.json"
    measure = f"def measure(self, cell, names): return [Row(name, seconds={seconds}) for name in names]"
    _, results = run_two_cells(measure, 0, f"--benchmark-json={theirs}")
    assert all(row.seconds == seconds for _, rows in results.cells().values() for row in rows)
    found = [entry["stats"] for entry in json.loads(theirs.read_text())["benchmarks"]]
    assert [(stats["data"], stats["median"], stats["max"]) for stats in found] == [(seconds, 0.5, 3.0)] * 8


def test_a_run_fails_if_fastccsa_fails(run_two_cells) -> None:
    output, results = run_two_cells(BUILD.format("cell.pairs == 8", "1 / 0"), status=1)
    assert "failed: ZeroDivisionError" in output
    assert "1 failed, 6 passed, 1 skipped" in output
    first, second = ({row.contestant: bool(row.seconds) for row in rows} for _, rows in results.cells().values())
    assert set(first.values()) == {True}
    assert second == {name: name.startswith("floor") for name in first}


def test_results_are_kept_after_every_cell(run_two_cells) -> None:
    """They are kept even if the process dies in the next cell."""
    _, results = run_two_cells(BUILD.format("cell.pairs == 8", "os._exit(3)"), status=3)
    assert list(results.cells()) == [Cell(8, 4).title]
    assert len(results.benchmarks) == 4


def test_contestants_that_are_not_selected_do_not_run(run_two_cells) -> None:
    dies = BUILD.format("one.name == 'fastccsa'", "os._exit(3)")
    output, _ = run_two_cells(dies, 0, "-k", "not reference")
    assert "6 passed, 2 deselected" in output
