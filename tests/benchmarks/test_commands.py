"""The benchmarks' commands at tiny sizes: all contestants, the table, the file. Nothing here depends on a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks.commands import BENCHMARKS
from benchmarks.harness.results import FLOOR, Results
from benchmarks.harness.table import table
from benchmarks.losses.zipped_contestants import CONTESTANTS
from fastccsa.cli import main

NAMES = [one.name for one in CONTESTANTS]
FLOORS = ["floor: bytes streamed", "floor: call that does nothing"]
TITLE = "N=6 D=5 C=3 float32, forward+backward, no weights"
QUICK = ("--threads", "1", "--seconds", "0", "--rounds", "3")


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["bench", *arguments])


@pytest.fixture(scope="module")
def everything(bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """One run with all contestants, both compiled ones among them."""
    path = tmp_path_factory.mktemp("bench") / "results.json"
    sizes = ("-n", "6", "-d", "5", "-c", "3", "--unweighted")
    result = bench("zipped", *sizes, *QUICK, "--machine", "a-test", "--out", str(path))
    return result.stdout, path


def test_the_table_has_all_contestants(everything: tuple[str, Path]) -> None:
    output, _ = everything
    assert TITLE in output
    for name in [*NAMES, *FLOORS]:
        assert f"   {name}" in output


def test_the_file_says_what_was_measured_and_with_what(everything: tuple[str, Path]) -> None:
    output, path = everything
    results = Results.read(path)
    assert results.machine_info["name"] == "a-test"
    assert results.machine_info["versions"]["torch"] == torch.__version__
    assert results.settings["zipped"]["threads"] == 1
    assert results.command.startswith("python -m benchmarks zipped -n 6 ")
    ((title, (cell, rows)),) = results.cells().items()
    assert (title, cell["pairs"], cell["weighted"], cell["mode"]) == (TITLE, 6, False, "forward+backward")
    assert {row.contestant for row in rows} == {*NAMES, *FLOORS}
    for row in rows:
        if row.not_measured == "not installed: pip install pytorch-metric-learning":
            continue
        if row.contestant == "fastccsa, CUDA graph":  # the command runs on the CPU
            assert row.not_measured == "CUDA graphs need a GPU"
            continue
        assert row.not_measured is None, row
        assert len(row.seconds) == 3
        assert min(row.seconds) > 0
        if row.kind != FLOOR:
            assert row.loss_error < 1e-5
            assert row.gradient_error < 1e-5
            assert row.peak_bytes > 0
    extra = rows[0].extra
    assert rows[0].peak_bytes >= extra["bytes_moved"] - 2 * extra["input_bytes"]  # the gradients at least
    # The file gives the same table as was printed; it only stores fewer digits.
    assert next(line for line in table(results).splitlines() if line.startswith(f" {TITLE}")) in output


def test_show_prints_the_table_of_a_file(everything: tuple[str, Path]) -> None:
    _, path = everything
    result = invoke("show", str(path))
    assert result.exit_code == 0
    assert result.stdout == table(Results.read(path)) + "\n"


def test_pytest_benchmark_compares_two_files(everything: tuple[str, Path], tmp_path: Path) -> None:
    _, path = everything
    other = tmp_path / "other.json"
    other.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "pytest_benchmark", "compare", str(path), str(other), "--columns=median,iqr"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"benchmark '{TITLE}': " in result.stdout
    assert result.stdout.count("fastccsa, pool (") == 2


def test_pytest_runs_what_is_selected_and_its_own_json_has_the_same_times(bench, tmp_path: Path) -> None:
    """``-k`` takes the others out of the race; statistics and groups are pytest-benchmark's."""
    ours, theirs = tmp_path / "ours.json", tmp_path / "theirs.json"
    options = ("--pairs=6", "--width=5", "--rounds=3", "--seconds=0", "--threads=1", f"--out={ours}")
    selected = ("benchmarks/bench_zipped.py", "-k", "reference or fastccsa-pool", f"--benchmark-json={theirs}")
    result = bench("-q", *selected, *options, module="pytest")
    assert "2 passed" in result.stdout
    results, content = Results.read(ours), json.loads(theirs.read_text())
    ((title, (_, rows)),) = results.cells().items()
    assert [row.contestant for row in rows] == ["fastccsa, pool", "fastccsa.reference"]
    for row, entry in zip(rows, content["benchmarks"], strict=True):
        assert (entry["group"], entry["name"]) == (title, row.contestant)
        assert entry["stats"]["data"] == pytest.approx(row.seconds, rel=1e-3)
        assert entry["stats"]["median"] == pytest.approx(row.median, rel=1e-3)
    assert content["machine_info"]["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["zipped", "--full", "-n", "3"], ["--full"]),
        (["zipped", "--rival", "numpy"], ["--rival", "'numpy' is not one of", "eager PyTorch"]),
        (["zipped", "--device", "cuda:99"], ["cuda:99", "not on this machine"]),
        (["zipped", "--dtype", "int8"], ["int8", "bfloat16"]),
        (["all-pairs", "--hard", "--full"], ["--full, --hard, and sizes exclude each other"]),
        (["all-pairs", "--rival", "numpy"], ["'numpy' is not one of"]),
        (["all-pairs", "-n", "0"], ["0 is not in the range"]),
        (["images", "--shape", "large"], ["give WIDTHxHEIGHT"]),
        (["images", "--contestant", "caffe"], ["no contestant is called 'caffe'; there are fused"]),
        (["images", "--images", "{empty}"], ["no .jpg or .jpeg file is in"]),
        (["decode", "--contestant", "caffe"], ["no contestant is called 'caffe'; there are fastccsa"]),
        (["prune"], ["nothing to measure without --run"]),
        (["selection"], ["name the runs to prune"]),
        (["show", "nowhere.json"], ["nowhere.json"]),
        (["show", __file__], ["not a file of benchmark results"]),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], parts: list[str], tmp_path: Path) -> None:
    result = invoke(*(argument.format(empty=tmp_path) for argument in arguments))
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    for part in parts:
        assert part in line


def test_bad_input_to_pytest_ends_it(bench) -> None:
    result = bench("benchmarks/bench_zipped.py", "--full", "--pairs=3", status=2, module="pytest")
    assert "--full measures every size" in result.stdout


def test_every_benchmark_is_collected(bench) -> None:
    result = bench("benchmarks", "--collect-only", "-q", module="pytest")
    collected = {line.split(".py::")[0] for line in result.stdout.splitlines() if ".py::" in line}
    assert collected == {f"bench_{name.replace('-', '_')}" for name in BENCHMARKS}


def test_outside_a_checkout_it_says_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "benchmarks", None)
    monkeypatch.delitem(sys.modules, "benchmarks")
    monkeypatch.setattr("fastccsa.cli.bench.__file__", str(tmp_path / "fastccsa" / "cli" / "bench.py"))
    result = invoke("zipped")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "run `python -m benchmarks` in a checkout" in line
