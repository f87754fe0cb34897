"""The table of experiments: means over seeds with the paper's numbers, in every format."""

from __future__ import annotations

import csv
import io
import math
import shutil
import subprocess
from pathlib import Path

import pytest

from fastccsa.experiments import EXPERIMENTS
from fastccsa.experiments.scale import parse_scale, train_config
from fastccsa.reporting import read_runs, report, score_table, to_csv, to_latex, to_markdown, to_text
from fastccsa.reporting.table import ScoreTable

SEVEN = ("HAM", "DMF", "D7P", "MSK", "PH2", "SON", "UDA")


def confusion(right: int, of: int = 10) -> list[list[int]]:
    """Return the confusion matrix of a single class, so that the macro-average recall is right / of."""
    return [[right, of - right, 0], [0, 0, 0], [0, 0, 0]]


@pytest.fixture
def write_experiment(write_run):
    """Return a function that writes the run of an experiment and seed, with the recalls of its domains in tenths."""

    def write(letter: str, seed: int, tenths: dict[str, int], scale: str = "paper", **changes) -> Path:
        row = EXPERIMENTS[letter]
        config = train_config(row if row.threshold is None else EXPERIMENTS["K"], parse_scale(scale), changes)
        values = {name: getattr(config, name) for name in config.__dataclass_fields__}
        confusions = {domain: confusion(right) for domain, right in tenths.items()}
        return write_run(f"{letter}/seed{seed}", confusions, **{**values, "seed": seed})

    return write


def table_of(tmp_path: Path) -> ScoreTable:
    return score_table(read_runs(tmp_path / "runs"))


def texts(table: ScoreTable) -> dict[str, list[str]]:
    return {name: [cell.text for cell in cells] for name, _, cells in table.rows}


def test_means_and_standard_errors_are_shown_with_the_papers_numbers(write_experiment, tmp_path) -> None:
    for seed, right in enumerate((6, 7, 9)):
        write_experiment("K", seed, {**dict.fromkeys(SEVEN, 5), "HAM": right})
    table = table_of(tmp_path)
    mean, error = 100 * (0.6 + 0.7 + 0.9) / 3, 100 * math.sqrt(0.14 / 3 / 2 / 3)  # squares sum to 0.14 / 3
    assert texts(table)["K"][0] == f"{mean:.1f} ±{error:.1f}" == "73.3 ±8.8"
    assert texts(table)["K"][1] == "50.0 ±0.0"
    assert texts(table)["K paper"] == ["72.3", "74.3", "44.4", "58.9", "82.3", "99.6", "66.7", "71.2"]
    assert texts(table)["K difference"][0] == f"{mean - 72.3:+.1f}"
    assert texts(table)["K difference"][2] == "+5.6"
    assert table.header == ("run", "n_sec", "backbone", "cls", "align", "seeds", *SEVEN, "avg")
    assert table.rows[0][1] == ("a", "RN18", "w", "w", "3")


def test_one_seed_has_no_error(write_experiment, tmp_path) -> None:
    write_experiment("K", 0, dict.fromkeys(SEVEN, 5))
    table = table_of(tmp_path)
    assert texts(table)["K"] == ["50.0"] * 8
    assert not any("standard error" in note for note in table.notes)


def test_an_excluded_domain_has_an_asterisk_here_and_in_the_papers_row(write_experiment, tmp_path) -> None:
    write_experiment("T", 0, dict.fromkeys(SEVEN, 5))
    table = texts(table_of(tmp_path))
    assert table["T"][6] == "*50.0"
    assert table["T paper"][6] == "*69.0"
    assert "*" not in "".join(table["T"][:6])


def test_missing_rows_and_seeds_are_named(write_experiment, tmp_path) -> None:
    for letter, seeds in {"A": (0, 1, 2), "K": (0, 2), "M": (1,)}.items():
        for seed in seeds:
            write_experiment(letter, seed, dict.fromkeys(SEVEN, 5))
    (tmp_path / "runs" / "M" / "seed1" / "scores.json").unlink()
    write_experiment("M", 0, dict.fromkeys(SEVEN, 5))
    notes = "\n".join(table_of(tmp_path).missing)
    assert "K 1" in notes
    assert "M 1, 2" in notes
    assert "Not finished: M/seed1" in notes
    assert "B, C, D, E, F, G, H, I, J, L, N, O" in notes


def test_the_scale_is_stated_with_the_papers(write_experiment, tmp_path) -> None:
    write_experiment("A", 0, dict.fromkeys(SEVEN, 5), "small,fraction=0.25")
    write_experiment("K", 0, dict.fromkeys(SEVEN, 5), "small,fraction=0.25", init="runs/A/seed0")
    baselines, ccsa = table_of(tmp_path).scale
    assert baselines.startswith("Scale of baselines (the paper's in brackets): fraction 0.25 (1); size 64 (224); ")
    assert "epochs 24 (135)" in baselines
    assert "first weights random (imagenet)" in baselines
    assert "epochs 12 (20)" in ccsa
    assert "lr 0.0003 (0.0001)" in ccsa
    assert "weights" not in ccsa


def test_settings_that_differ_from_the_papers_row_are_stated(write_experiment, tmp_path) -> None:
    paper = {"init": "runs/A/seed0", "recipe": "paper", "selection": "paper"}
    write_experiment("K", 0, dict.fromkeys(SEVEN, 5), **paper)
    assert table_of(tmp_path).scale == ("Scale of CCSA (the paper's in brackets): as in the paper.",)
    write_experiment("L", 0, dict.fromkeys(SEVEN, 5), **paper, margin=10.0, n_sec=3)
    (line,) = table_of(tmp_path).scale
    assert "margin 10 (50)" in line
    assert "n_sec all, 3 (all)" in line


def test_another_recipe_is_stated_without_what_follows_from_it(write_experiment, tmp_path) -> None:
    write_experiment("K", 0, dict.fromkeys(SEVEN, 5), init="runs/A/seed0", alpha=0.25)
    write_experiment("A", 0, dict.fromkeys(SEVEN, 5), weights="imagenet")
    baselines, ccsa = table_of(tmp_path).scale
    assert baselines == "Scale of baselines (the paper's in brackets): selection informative (paper)."
    assert ccsa == (
        "Scale of CCSA (the paper's in brackets): recipe balanced (paper); alpha 0.25 (0.5); "
        "selection informative (paper)."
    )


def test_avg_is_compared_over_the_same_domains(write_experiment, tmp_path) -> None:
    write_experiment("K", 0, {"HAM": 5, "UDA": 7})
    table = table_of(tmp_path)
    assert texts(table)["K"] == ["50.0", "70.0", "60.0"]
    assert texts(table)["K paper"] == ["72.3", "66.7", f"{(72.3 + 66.7) / 2:.1f}"]
    assert any("also in the paper's rows: without DMF, D7P, MSK, PH2, SON" in note for note in table.notes)


def test_avg_over_a_domain_that_the_paper_lacks_is_not_compared(write_experiment, tmp_path) -> None:
    write_experiment("K", 0, {"HAM": 5, "mine": 7})
    assert texts(table_of(tmp_path))["K paper"] == ["72.3", "-", "-"]


def test_pruned_rows_say_so(write_experiment, tmp_path) -> None:
    write_experiment("U", 0, dict.fromkeys(SEVEN, 5))
    table = table_of(tmp_path)
    assert texts(table)["U paper"][0] == "71.9"
    assert "Pruned: U is K at 0.0001." in table.notes


def test_other_runs_are_listed_without_the_papers_numbers(write_experiment, write_run, tmp_path) -> None:
    write_experiment("K", 0, dict.fromkeys(SEVEN, 5))
    write_run("mine", {"HAM": confusion(9)})
    write_run("L", {"HAM": confusion(1)})  # a run folder of that name is not an experiment
    table = texts(table_of(tmp_path))
    assert list(table) == ["K", "K paper", "K difference", "L", "mine"]
    assert table["mine"][0] == "90.0"


def test_a_single_run_of_an_experiment_is_compared_too(write_experiment) -> None:
    folder = write_experiment("K", 3, dict.fromkeys(SEVEN, 5))
    table = score_table(read_runs(folder))
    assert [name for name, _, _ in table.rows] == ["K", "K paper", "K difference"]


def test_csv_has_all_numbers_with_names(write_experiment, tmp_path) -> None:
    for seed, right in enumerate((6, 7, 9)):
        write_experiment("T", seed, {**dict.fromkeys(SEVEN, 5), "HAM": right})
    (row,) = csv.DictReader(io.StringIO(to_csv(table_of(tmp_path))))
    assert (row["run"], row["seeds"], row["left_out"], row["n_sec"]) == ("T", "3", "UDA", "a")
    assert float(row["HAM"]) == pytest.approx(220 / 3, abs=1e-4)
    assert float(row["HAM_se"]) == pytest.approx(100 * math.sqrt(0.14 / 18), abs=1e-4)
    assert float(row["HAM_paper"]) == 70.1
    assert float(row["HAM_difference"]) == pytest.approx(220 / 3 - 70.1, abs=1e-4)
    assert float(row["avg_paper"]) == 70.1


def test_csv_leaves_missing_numbers_empty(write_run, tmp_path) -> None:
    write_run("mine, mine", {"HAM": confusion(9)})
    (row,) = csv.DictReader(io.StringIO(to_csv(table_of(tmp_path))))
    assert row["run"] == "mine, mine"
    assert (row["HAM"], row["HAM_se"], row["HAM_paper"]) == ("90.0000", "", "")


def test_csv_has_no_cell_that_a_spreadsheet_program_would_compute(write_run, tmp_path) -> None:
    write_run("=1+1", {"HAM": confusion(9), "@SUM(A1)": confusion(8)}, alignment="-", exclude=("@SUM(A1)",))
    (head, row) = csv.reader(io.StringIO(to_csv(table_of(tmp_path))))
    assert (row[0], row[head.index("align")], row[head.index("left_out")]) == ("'=1+1", "-", "'@SUM(A1)")
    assert [cell for cell in (*head, *row) if cell[:1] in ("=", "+", "@") or cell[:1] == "-" != cell] == []


def test_latex_rows_have_every_column_and_signs_are_escaped(write_experiment, write_run, tmp_path) -> None:
    write_experiment("K", 0, dict.fromkeys(SEVEN, 5))
    write_experiment("K", 1, dict.fromkeys(SEVEN, 6))
    write_run("100%_a&b", {"HAM": confusion(9)})
    text = to_latex(table_of(tmp_path))
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {13}
    assert r"100\%\_a\&b" in text
    assert r"55.0 $\pm$5.0" in text
    assert r"\begin{tabular}{llllllrrrrrrrr}" in text
    if shutil.which("pdflatex"):
        (tmp_path / "t.tex").write_text(rf"\documentclass{{article}}\begin{{document}}{text}\end{{document}}")
        subprocess.run(["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_text_and_markdown_contain_everything(write_experiment, tmp_path) -> None:
    write_experiment("K", 0, dict.fromkeys(SEVEN, 5))
    table = table_of(tmp_path)
    for text in (to_text(table), to_markdown(table)):
        assert "K paper" in text
        assert "K difference" in text
        assert "as in the paper" in text or "Scale of" in text


@pytest.mark.parametrize(("name", "write"), [("latex", to_latex), ("csv", to_csv), ("markdown", to_markdown)])
def test_report_prints_the_format_asked_for(write_experiment, tmp_path, capsys, name, write) -> None:
    write_experiment("K", 0, dict.fromkeys(SEVEN, 5))
    report(tmp_path / "runs", tmp_path / "r.html", name, images=False)
    assert capsys.readouterr().out == write(table_of(tmp_path))
