"""The contestants of the loss over all pairs at tiny sizes: equal results, errors, and skipped contestants."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from benchmarks.harness.benchmark import CannotRun
from benchmarks.harness.results import Row
from benchmarks.losses import all_pairs_contestants
from benchmarks.losses.all_pairs import CASES, LABELS, QUICK, SWEEP, Benchmark, Cell, make_problem
from benchmarks.losses.all_pairs_contestants import CONTESTANTS, MARGIN
from benchmarks.losses.common import Contestant
from fastccsa import reference
from fastccsa.system import machine

# Compiled contestants take long; KeOps calls a compiler too.
FAST = [one for one in CONTESTANTS if not one.compiled and one.name != "KeOps"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def make_benchmark(options):
    """Make a benchmark of the fast contestants."""

    def make(**given: object) -> Benchmark:
        benchmark = Benchmark(options("all-pairs", **given))
        benchmark.contestants = tuple(FAST)
        return benchmark

    return make


def rows_of(benchmark: Benchmark, cell: Cell) -> dict[str, Row]:
    return {row.contestant: row for row in benchmark.measure(cell, benchmark.names())}


@pytest.mark.parametrize("memory", [0, 300])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("rival", FAST, ids=lambda rival: rival.name)
def test_all_compute_the_same(rival: Contestant, labels: str, memory: int) -> None:
    cell = Cell(70, 11, labels, "float64", memory)
    problem = make_problem(cell)
    try:
        function = rival.build(problem, cell)
    except CannotRun as reason:
        pytest.skip(str(reason))
    loss = function.call(*problem.arguments)
    assert problem.loss_error(loss) < 1e-9
    assert problem.gradient_error(torch.autograd.grad(loss, problem.inputs)) < 1e-9


def test_the_expectation_is_the_reference() -> None:
    problem = make_problem(Cell(70, 11, dtype="float64"))
    loss = reference.contrastive_alignment(*problem.arguments, margin=MARGIN, pairs="all")
    gradients = [g.clone() for g in torch.autograd.grad(loss, problem.inputs)]
    assert problem.loss_error(loss) < 1e-12
    assert problem.gradient_error(tuple(gradients)) < 1e-12
    assert problem.loss_error(1.01 * loss) == pytest.approx(0.01)
    largest = gradients[1][::3].abs().max()  # 24 of 70 rows are compared
    gradients[1][3, 4] += 0.5 * largest
    assert problem.gradient_error(tuple(gradients)) == pytest.approx(0.5)
    gradients[0][0, 0] = math.nan
    assert math.isnan(problem.gradient_error(tuple(gradients)))


def test_a_memory_gets_no_gradient(make_benchmark) -> None:
    benchmark = make_benchmark(memory=90, width=(6,), labels=("uniform",))
    problem = make_problem(Cell(40, 6, memory=90))
    assert [len(z) for z in problem.arguments[:2]] == [40, 90]
    assert [len(z) for z in problem.inputs] == [40]
    (cell,) = benchmark.cells()
    assert cell == Cell(32, 6, memory=90)
    assert (cell.matrix_bytes, cell.bytes_moved - cell.input_bytes) == (32 * 90 * 4, 32 * 6 * 4)
    rows = rows_of(benchmark, cell)
    assert [name for name in rows if name.startswith("floor")] == ["floor: two products"]
    assert rows["fastccsa"].gradient_error < 1e-5


def test_labels_have_the_documented_frequencies() -> None:
    targets = (make_problem(Cell(4000, 2, labels)).arguments[2] for labels in LABELS)
    uniform, table1 = (torch.bincount(target, minlength=7) / 4000 for target in targets)
    assert uniform.max() < 0.2
    assert table1[0].item() == pytest.approx(0.75, abs=0.05)  # nevi


def test_all_are_measured_with_the_products_as_floor(make_benchmark) -> None:
    rows = rows_of(make_benchmark(), Cell(40, 6, "table1"))
    assert list(rows) == [*(one.name for one in FAST), "floor: three products"]
    for row in rows.values():
        if row.contestant.startswith("fastccsa, "):
            assert row.not_measured == "on a CPU every precision is ieee"
        elif row.not_measured != "not installed: pip install pytorch-metric-learning":
            assert row.not_measured is None
            assert len(row.seconds) == 3
            assert row.kind == "floor" or row.gradient_error < 1e-5


def test_contestants_that_cannot_fit_are_skipped(make_benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda device: 10**9)
    rows = rows_of(make_benchmark(rival=("differences",), memory_limit=0.5), Cell(4000, 64))
    assert rows["differences"].not_measured == "does not fit: needs about 11.4 GiB of 0.5 GiB usable"
    assert rows["fastccsa"].seconds


def test_cells_that_would_take_too_long_are_skipped(make_benchmark) -> None:
    benchmark = make_benchmark(rival=("chunked",), longest=30)
    benchmark.rate = 1e6  # operations per second
    reason = "three products would take about 60 s, more than the 30 s of --longest"
    assert {row.not_measured for row in rows_of(benchmark, Cell(1000, 10)).values()} == {reason}
    assert rows_of(benchmark, Cell(10, 10))["fastccsa"].seconds


def test_hard_cases_distinguish_differences_from_products(make_benchmark) -> None:
    benchmark = make_benchmark(rival=("torch.cdist", "differences"), hard=True)
    cells = {cell.case: rows_of(benchmark, cell) for cell in benchmark.cells()}
    assert list(cells) == list(CASES)
    for rows in cells.values():
        assert list(rows) == ["fastccsa", "torch.cdist", "differences"]
        for name in ("fastccsa", "differences"):
            assert rows[name].loss_error < 1e-6
            assert rows[name].gradient_error < 1e-6
            assert not rows[name].seconds
        assert rows["torch.cdist"].loss_error > rows["fastccsa"].loss_error
    assert cells["norm 1e3, distances 1e-3"]["torch.cdist"].gradient_error > 0.1


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pykeops.torch", None)
    cell = Cell(4, 3)
    with pytest.raises(CannotRun, match="not installed: pip install pykeops"):
        all_pairs_contestants._keops(make_problem(cell), cell)


def test_the_sweep_has_the_documented_cells() -> None:
    assert {cell.rows for cell in SWEEP} == {1024, 4096, 16384, 65536, 262144}
    assert {cell.width for cell in SWEEP} == {128, 512, 2048}
    assert {cell.labels for cell in SWEEP} == set(LABELS)
    assert len(set(SWEEP)) == 30
    assert set(QUICK) <= set(SWEEP)
