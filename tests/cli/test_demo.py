"""The whole demo at the smallest scale: it takes seconds, and its scores are meaningless."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastccsa.cli import main
from fastccsa.cli.demo import conclusions, experiments
from fastccsa.collections.taxonomy import TABLE1
from fastccsa.reporting.arms_table import as_markdown
from fastccsa.sampling import RECIPES


def run_demo(out: Path, *more: str) -> str:
    arguments = [
        "demo",
        "--out",
        str(out),
        "--images",
        "1",
        "--epochs",
        "1",
        "--size",
        "32",
        "--device",
        "cpu",
        "--seeds",
        "1",
    ]
    result = CliRunner().invoke(main, [*arguments, *more])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of the demo, and its output."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, run_demo(out)


def test_the_runs_are_the_papers_a_and_e_and_ccsa_without_one_domain(tmp_path: Path) -> None:
    runs = list(experiments(tmp_path, unseen="UDA", seeds=2, epochs=4, size=64, device="cpu", seed=7))
    assert [(arm, config.seed) for arm, config in runs] == [
        (arm, seed) for seed in (7, 8) for arm in ("baseline", "aggregation", "ccsa")
    ]
    (_, baseline), (_, aggregation), (_, ccsa) = runs[:3]
    assert (baseline.n_sec, baseline.classification_weight, baseline.alignment) == (0, "w", "-")
    assert (aggregation.n_sec, aggregation.alignment) == ("all", "-")
    assert (ccsa.n_sec, ccsa.classification_weight, ccsa.alignment) == ("all", "w", "w")
    assert ccsa.init == baseline.out
    assert ccsa.balance == RECIPES["balanced"]
    for config in (baseline, aggregation, ccsa):
        assert config.exclude == ("UDA",)
        assert config.weights == "none"  # nothing is downloaded


def test_it_prints_recalls_and_differences_with_intervals(demo: tuple[Path, str]) -> None:
    out, printed = demo
    found = json.loads((out / "arms.json").read_text())
    assert as_markdown(found) in printed
    assert [row["arm"] for row in found["scores"]] == ["baseline", "aggregation", "ccsa"]
    compared = {(row["arm"], row["minus"]) for row in found["differences"]}
    assert {("ccsa", "aggregation"), ("ccsa", "baseline")} <= compared
    assert found["domains"]["0"]["unseen"] == ["MSK"]
    assert set(found["domains"]["0"]["all"]) == set(TABLE1)
    for line in conclusions(found):
        assert line in printed


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((3.0, 1.0, 5.0), "ahead of"), ((-3.0, -5.0, -1.0), "behind"), ((1.0, -1.0, 3.0), "not told apart from")],
)
def test_it_claims_nothing_within_noise(interval: tuple[float, float, float], verdict: str) -> None:
    cell = [*interval, 2]
    rows = [{"arm": "ccsa", "minus": "aggregation", "unseen": cell, "several": None}]
    (line,) = conclusions({"differences": [{**rows[0], "arm": "aggregation"}, *rows]})
    assert line.startswith(f"On the domain never seen, CCSA is {verdict} the aggregation: {interval[0]:+.1f} points")


def test_it_says_that_the_images_are_synthetic(demo: tuple[Path, str]) -> None:
    out, printed = demo
    page = (out / "report.html").read_text()
    assert printed.startswith("The images are synthetic")
    assert "The images are synthetic" in page
    assert str(out / "report.html") in printed.splitlines()[-1]


def test_repeating_it_reuses_the_results(demo: tuple[Path, str]) -> None:
    out, _ = demo
    kept = sorted((out / "runs").glob("*/seed0/model.safetensors"))
    assert len(kept) == 3
    before = [file.stat().st_mtime_ns for file in kept]
    again = run_demo(out)
    assert [file.stat().st_mtime_ns for file in kept] == before
    assert (out / "arms.json").exists()
    assert "Done in" in again


def test_other_settings_in_the_same_folder_are_an_error_of_one_line(demo: tuple[Path, str]) -> None:
    out, _ = demo
    arguments = ["demo", "--out", str(out), "--images", "1", "--epochs", "2", "--size", "32", "--device", "cpu"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith("fastccsa: error: ")
    assert "epochs" in error
