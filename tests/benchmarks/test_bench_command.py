"""``fastccsa bench`` at tiny sizes: all contestants, the table, the file. Nothing here depends on how long it takes."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from fastccsa.benchmarking.results import FLOOR, Results
from fastccsa.benchmarking.table import table
from fastccsa.benchmarking.zipped import BACKWARD, FORWARD, Cell, Settings, cells, measure, run
from fastccsa.benchmarking.zipped import rivals as contestants
from fastccsa.benchmarking.zipped.rivals import RIVALS, CannotExpress, LossFunction, Rival
from fastccsa.cli import main
from fastccsa.system import machine

NAMES = [rival.name for rival in RIVALS]
EAGER = "eager PyTorch"
SHORT = ("--threads", "1", "--seconds", "0", "--rounds", "3", "--machine", "a-test")


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One run with all contestants, both compiled ones among them."""
    folder = tmp_path_factory.mktemp("bench")
    before = torch.get_num_threads()
    result = bench(
        "zipped", "-n", "6", "-d", "5", "-c", "3", "--unweighted", *SHORT,
        "--out", str(folder / "results.json"), "--plot", str(folder / "times.svg"),
    )  # fmt: skip
    torch.set_num_threads(before)
    assert result.exit_code == 0, result.output
    return result, folder


def test_the_table_has_all_contestants(everything: tuple[Result, Path]) -> None:
    result, _ = everything
    assert "N=6 D=5 C=3 float32, forward+backward, no weights" in result.stdout
    for name in [*NAMES, "floor: bytes streamed", "floor: call that does nothing"]:
        assert f"   {name}" in result.stdout


def test_the_file_says_what_was_measured_and_with_what(everything: tuple[Result, Path]) -> None:
    result, folder = everything
    results = Results.read(folder / "results.json")
    assert results.machine["name"] == "a-test"
    assert results.versions["torch"] == torch.__version__
    assert results.settings["threads"] == 1
    (cell,) = results.cells
    assert (cell.cell["pairs"], cell.cell["weighted"], cell.cell["mode"]) == (6, False, BACKWARD)
    assert [m.contestant for m in cell.measurements if m.kind != FLOOR] == NAMES
    for row in cell.measurements:
        if row.contestant == "pytorch-metric-learning" and not importlib.util.find_spec("pytorch_metric_learning"):
            assert row.not_measured == "not installed: pip install pytorch-metric-learning"
            continue
        assert row.not_measured is None, row
        assert len(row.seconds) == 3
        assert min(row.seconds) > 0
        if row.kind != FLOOR:
            assert row.loss_error < 1e-5
            assert row.gradient_error < 1e-5
            assert row.peak_bytes > 0
    assert cell["fastccsa"].peak_bytes >= cell.bytes_moved - 2 * cell.input_bytes  # the gradients at least
    # The file holds what was printed, but for the digits that it leaves out.
    assert result.stdout.splitlines()[2] == table(results).splitlines()[2]


def test_show_prints_the_table_of_a_file(everything: tuple[Result, Path], tmp_path: Path) -> None:
    _, folder = everything
    result = bench("show", str(folder / "results.json"), "--plot", str(tmp_path / "times.png"))
    assert result.exit_code == 0
    assert result.stdout == table(Results.read(folder / "results.json")) + "\n"
    assert (tmp_path / "times.png").stat().st_size > 1000
    assert (folder / "times.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["zipped", "--full", "-n", "3"], ["--full"]),
        (["zipped", "--rival", "numpy"], ["--rival", "numpy", EAGER]),
        (["zipped", "--plot", "times.pdf"], ["times.pdf", ".svg", ".png"]),
        (["zipped", "--device", "cuda:99"], ["cuda:99", "not on this machine"]),
        (["zipped", "--dtype", "int8"], ["int8", "bfloat16"]),
        (["show", "nowhere.json"], ["nowhere.json"]),
        (["show", __file__], ["not a file of benchmark results"]),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], parts: list[str]) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    for part in parts:
        assert part in line


def quickly(**settings) -> Settings:
    return Settings(**{"threads": 1, "rounds": 3, "seconds": 0, "rivals": (EAGER,), "machine": "a-test"} | settings)


def test_modes_share_their_data_and_forward_has_no_gradients() -> None:
    results = run([Cell(8, 4, 3), Cell(8, 4, 3, mode=FORWARD)], quickly())
    both, forward = results.cells
    assert both[EAGER].loss_error == pytest.approx(forward[EAGER].loss_error, abs=1e-6)
    assert forward[EAGER].gradient_error is None
    assert forward[EAGER].peak_bytes < both[EAGER].peak_bytes
    assert torch.is_grad_enabled()
    assert both["torch.compile"].not_measured == "not asked for"


def test_what_does_not_fit_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_bytes", lambda device: 10**6)
    small, large = run([Cell(8, 4, 3), Cell(10**7, 512)], quickly()).cells
    assert small["fastccsa"].seconds
    for row in large.measurements:
        assert not row.seconds
        assert row.not_measured.startswith("does not fit: needs about ")


def test_a_rival_that_does_not_fit_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    hungry = Rival("hungry", contestants.OURS.build, lambda cell: math.inf)
    monkeypatch.setattr(contestants, "RIVALS", (contestants.OURS, hungry))
    (cell,) = run([Cell(8, 4, 3)], quickly(rivals=None)).cells
    assert cell["hungry"].not_measured.startswith("does not fit")
    assert cell["fastccsa"].seconds


def test_no_cell_begins_when_the_time_is_over() -> None:
    results = run([Cell(8, 4, 3)], quickly(minutes=0))
    assert {row.not_measured for row in results.cells[0].measurements} == {"the 0 minutes were over"}
    assert "not measured (1)" in table(results)


def test_a_contestant_that_fails_is_named_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*arguments: object) -> torch.Tensor:
        raise RuntimeError("no such kernel\nat this address")

    def refuse(problem: object, cell: Cell) -> LossFunction:
        raise CannotExpress("cannot express: anything")

    broken = Rival("broken", lambda problem, cell: LossFunction(explode), lambda cell: 0)
    unfit = Rival("unfit", refuse, lambda cell: 0)
    monkeypatch.setattr(contestants, "RIVALS", (contestants.OURS, broken, unfit))
    (cell,) = run([Cell(8, 4, 3)], quickly(rivals=None)).cells
    assert cell["broken"].not_measured == "failed: RuntimeError: no such kernel"
    assert cell["unfit"].not_measured == "cannot express: anything"
    assert cell["fastccsa"].seconds


def test_the_command_fails_where_fastccsa_does(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Rival("fastccsa", lambda problem, cell: LossFunction(lambda *arguments: 1 / 0), lambda cell: 0)
    monkeypatch.setattr(contestants, "OURS", ours)
    monkeypatch.setattr(contestants, "RIVALS", (ours,))
    result = bench("zipped", "-n", "6", "-d", "5", *SHORT)
    assert result.exit_code == 2
    assert "failed: ZeroDivisionError" in result.stdout
    assert "fastccsa itself failed" in result.stderr


def test_results_are_kept_after_every_cell(tmp_path: Path) -> None:
    seen = []

    def after_cell(results: Results) -> None:
        results.write(tmp_path / "results.json")
        seen.append(len(Results.read(tmp_path / "results.json").cells))

    run([Cell(8, 4, 3), Cell(9, 4, 3)], quickly(), after_cell=after_cell)
    assert seen == [1, 2]


def test_large_sizes_of_a_sweep_share_a_compiled_graph() -> None:
    shared = measure._sizes_that_share_a_graph
    assert shared([Cell(32), Cell(65536)]) == set()
    assert shared([Cell(65536), Cell(65536, mode=FORWARD)]) == set()
    assert shared([Cell(4096), Cell(65536), Cell(65536, 128)]) == {Cell(0)}
    assert len(shared(cells.sweep())) == 3 * 2 * 2


def test_one_graph_serves_several_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the count of compilations is as promised: torch counts the graphs."""
    from torch._dynamo.utils import counters

    monkeypatch.setattr(measure, "MANY_PAIRS", 8)
    monkeypatch.setattr(contestants, "RIVALS", (contestants.OURS, eager_backend()))
    counters.clear()
    results = run([Cell(n, 4, 3) for n in (3, 10, 20, 30)], quickly(rivals=None))
    assert counters["stats"]["unique_graphs"] == 2  # for 3 pairs, and for many
    assert [cell["compiled"].not_measured for cell in results.cells] == [None] * 4
    assert [cell["compiled"].note for cell in results.cells] == ["plain", *["plain; any N"] * 3]


def eager_backend() -> Rival:
    """torch.compile without its slow code generator."""

    def build(problem: object, cell: Cell) -> LossFunction:
        options = {"backend": "aot_eager", "fullgraph": True, "dynamic": False}
        return LossFunction(torch.compile(contestants.COMPILED, **options), "plain")

    return Rival("compiled", build, lambda cell: 0, compiled=True)
