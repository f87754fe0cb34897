"""``fastccsa bench all-pairs`` at tiny sizes: one job for all, errors that are seen, and what is not tried."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fastccsa.benchmarking.all_pairs import Cell, Settings, hard, measure, run, run_hard
from fastccsa.benchmarking.all_pairs import rivals as contestants
from fastccsa.benchmarking.all_pairs.cells import LABELS, quick, sweep
from fastccsa.benchmarking.all_pairs.problem import MARGIN, Problem
from fastccsa.benchmarking.contestants import CannotExpress, Rival
from fastccsa.benchmarking.results import FLOOR, Results
from fastccsa.benchmarking.table import table
from fastccsa.cli import bench_all_pairs, main
from fastccsa.system import machine, reference

# What is compiled takes long; KeOps calls a compiler too.
QUICK = [rival for rival in contestants.RIVALS if not rival.compiled and rival.name != "KeOps"]


@pytest.fixture(autouse=True)
def _quick_rivals(one_thread, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contestants, "RIVALS", tuple(QUICK))


def settings(**changes) -> Settings:
    return Settings(**{"threads": 1, "rounds": 3, "seconds": 0, "machine": "a-test"} | changes)


@pytest.mark.parametrize("memory", [0, 300])
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("rival", QUICK, ids=lambda rival: rival.name)
def test_all_compute_the_same(rival: Rival, labels: str, memory: int) -> None:
    cell = Cell(70, 11, labels, "float64", memory)
    problem = Problem.of(cell)
    try:
        function = rival.build(problem, cell)
    except CannotExpress as reason:
        pytest.skip(str(reason))
    loss = function.call(*problem.arguments)
    assert problem.loss_error(loss) < 1e-9
    assert problem.gradient_error(torch.autograd.grad(loss, problem.inputs)) < 1e-9


def test_the_expectation_is_the_reference() -> None:
    problem = Problem.of(Cell(70, 11, dtype="float64"))
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


def test_a_memory_gets_no_gradient(tmp_path: Path) -> None:
    cell = Cell(40, 6, memory=90)
    problem = Problem.of(cell)
    assert [len(z) for z in problem.features] == [40, 90]
    assert [len(z) for z in problem.inputs] == [40]
    assert (cell.matrix_bytes, cell.gradient_bytes) == (40 * 90 * 4, 40 * 6 * 4)
    options = ["--memory", "90", "-d", "6", "--labels", "uniform", "--rounds", "3", "--seconds", "0", "--threads", "1"]
    result = CliRunner().invoke(main, ["bench", "all-pairs", *options, "--out", str(tmp_path / "results.json")])
    assert result.exit_code == 0, result.output
    (found,) = Results.read(tmp_path / "results.json").cells
    assert (found.cell["rows"], found.cell["memory"]) == (32, 90)
    assert found.floor.contestant == "floor: two products"
    assert found["fastccsa"].gradient_error < 1e-5


def test_labels_are_as_frequent_as_said() -> None:
    uniform, table1 = (torch.bincount(Problem.of(Cell(4000, 2, y)).targets[0], minlength=7) / 4000 for y in LABELS)
    assert uniform.max() < 0.2
    assert table1[0].item() == pytest.approx(0.75, abs=0.05)  # nevi


def test_a_run_measures_all_and_its_file_can_be_shown(tmp_path: Path) -> None:
    files = ["--out", str(tmp_path / "results.json"), "--plot", str(tmp_path / "times.svg")]
    sizes = ["-n", "40", "-d", "6", "--labels", "table1", "--threads", "1", "--rounds", "3", "--seconds", "0"]
    result = CliRunner().invoke(main, ["bench", "all-pairs", *sizes, *files])
    assert result.exit_code == 0, result.output
    results = Results.read(tmp_path / "results.json")
    assert results.benchmark == "all-pairs"
    (cell,) = results.cells
    assert cell.floor.contestant == "floor: three products"
    for row in cell.measurements:
        if row.contestant.startswith("fastccsa, "):
            assert row.not_measured == "on a CPU every precision is ieee"
        elif row.not_measured != "not installed: pip install pytorch-metric-learning":
            assert row.not_measured is None
            assert len(row.seconds) == 3
            assert row.kind == FLOOR or row.gradient_error < 1e-5
    shown = CliRunner().invoke(main, ["bench", "show", str(tmp_path / "results.json")])
    assert shown.stdout == table(results) + "\n"
    assert "three products" in (tmp_path / "times.svg").read_text()


def test_what_cannot_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda device: 10**9)
    (cell,) = run([Cell(4000, 64)], settings(rivals=("differences",), memory_limit=0.5)).cells
    assert cell["differences"].not_measured == "does not fit: needs about 11.4 GiB of 0.5 GiB usable"
    assert cell["fastccsa"].seconds


def test_what_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_operations_a_second", lambda device: 1e6)
    large, small = run([Cell(1000, 10), Cell(10, 10)], settings(rivals=("chunked",)), longest=30).cells
    reason = "three products would take about 60 s, more than the 30 s of --longest"
    assert {row.not_measured for row in large.measurements} == {reason}
    assert small["fastccsa"].seconds


def test_hard_cases_tell_differences_from_products(tmp_path: Path) -> None:
    results = run_hard(settings(rivals=("torch.cdist", "differences")))
    results.write(tmp_path / "errors.json")
    assert Results.read(tmp_path / "errors.json").cells[0].cell["case"] == next(iter(hard.CASES))
    for cell in results.cells:
        for name in ("fastccsa", "differences"):
            assert cell[name].loss_error < 1e-6
            assert cell[name].gradient_error < 1e-6
        assert cell["torch.cdist"].loss_error > cell["fastccsa"].loss_error
    lost = next(cell for cell in results.cells if cell.cell["case"] == "norm 1e3, distances 1e-3")
    assert lost["torch.cdist"].gradient_error > 0.1
    assert "norm 1e3, distances 1e-3" in table(results)
    assert "not asked for" in table(results)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pykeops.torch", None)
    cell = Cell(4, 3)
    with pytest.raises(CannotExpress, match="not installed: pip install pykeops"):
        contestants._keops(Problem.of(cell), cell)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hard", "--full"], "--full, --hard, and sizes exclude each other"),
        (["--hard", "--plot", "errors.svg"], "no times to --plot"),
        (["--rival", "numpy"], "'numpy' is none of"),
        (["-n", "0"], "0 is not in the range"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["bench", "all-pairs", *arguments])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line


def test_the_sweep_is_what_was_promised() -> None:
    cells = sweep()
    assert {cell.rows for cell in cells} == {1024, 4096, 16384, 65536, 262144}
    assert {cell.width for cell in cells} == {128, 512, 2048}
    assert {cell.labels for cell in cells} == set(LABELS) == set(bench_all_pairs.LABELS)
    assert len(set(cells)) == 30
    assert set(quick()) <= set(cells)
