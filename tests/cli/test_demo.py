"""The whole demo at the smallest scale: it takes seconds, and its scores are meaningless."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fastccsa.cli import main
from fastccsa.cli.demo import experiments
from fastccsa.collections.taxonomy import TABLE1
from fastccsa.reporting import read_runs, score_table, to_text


def run_demo(out: Path, *more: str) -> str:
    arguments = ["demo", "--out", str(out), "--images", "1", "--epochs", "1", "--size", "32", "--device", "cpu"]
    result = CliRunner().invoke(main, [*arguments, *more])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the demo, and its output."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, run_demo(out)


def test_the_experiments_are_the_papers_a_and_k(tmp_path: Path) -> None:
    baseline, ccsa = experiments(tmp_path, epochs=4, size=64, device="cpu", seed=7)
    assert (baseline.n_sec, baseline.classification_weight, baseline.alignment) == (0, "w", "-")
    assert (ccsa.n_sec, ccsa.classification_weight, ccsa.alignment) == ("all", "w", "w")
    assert ccsa.init == baseline.out
    assert (ccsa.margin, ccsa.alpha, ccsa.match_probability) == (50.0, 0.5, 0.25)
    assert {baseline.seed, ccsa.seed} == {7}
    assert {baseline.weights, ccsa.weights} == {"none"}  # nothing is downloaded


def test_it_prints_the_table_of_both_models_on_all_seven_domains(demo: tuple[Path, str]) -> None:
    out, printed = demo
    table = score_table(read_runs(out / "runs"))
    assert [name for name, _, _ in table.rows] == ["A", "K"]
    assert table.domains == tuple(TABLE1)
    assert to_text(table) in printed


def test_it_says_that_the_images_are_synthetic(demo: tuple[Path, str]) -> None:
    out, printed = demo
    page = (out / "report.html").read_text()
    assert printed.startswith("The images are synthetic")
    assert "The images are synthetic" in page
    assert str(out / "report.html") in printed.splitlines()[-1]


def test_repeating_it_reuses_the_results(demo: tuple[Path, str]) -> None:
    out, _ = demo
    kept = [out / "runs" / run / "model.safetensors" for run in "AK"]
    before = [file.stat().st_mtime_ns for file in kept]
    again = run_demo(out)
    assert [file.stat().st_mtime_ns for file in kept] == before
    assert to_text(score_table(read_runs(out / "runs"))) in again


def test_other_settings_in_the_same_folder_are_an_error_of_one_line(demo: tuple[Path, str]) -> None:
    out, _ = demo
    arguments = ["demo", "--out", str(out), "--images", "1", "--epochs", "2", "--size", "32", "--device", "cpu"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith("fastccsa: error: ")
    assert "epochs" in error
