from __future__ import annotations

from pathlib import Path

import pytest

from fastccsa.reporting import read_runs, report, score_table, to_latex, to_markdown, to_text
from fastccsa.reporting.table import ScoreTable
from fastccsa.system.errors import InputError

# Computed by hand from conftest.CONFUSIONS: the mean over the classes with images of correct answers / images.
HAM = 100 * (50 / 54 + 20 / 24 + 9 / 13) / 3  # 81.717...
UDA = 100 * (7 / 9 + 5 / 6) / 2  # 80.555...
AVG = (HAM + UDA) / 2  # 81.136...

WORSE = {"UDA": [[7, 2, 0], [1, 5, 0], [0, 0, 0]], "HAM": [[0, 54, 0], [0, 24, 0], [0, 13, 0]]}


def table_of(folder: Path) -> ScoreTable:
    return score_table(read_runs(folder))


def texts(table: ScoreTable, row: int = 0) -> list[str]:
    return [cell.text for cell in table.rows[row][2]]


def test_the_numbers_are_the_macro_average_recalls_and_their_mean(write_run) -> None:
    table = table_of(write_run("k"))
    assert table.header == ("run", "n_sec", "backbone", "cls", "align", "HAM", "UDA", "avg")
    assert texts(table) == [f"{HAM:.1f}", f"{UDA:.1f}", f"{AVG:.1f}"] == ["81.7", "80.6", "81.1"]
    assert table.rows[0][:2] == ("k", ("a", "RN18", "w", "w"))


def test_domains_are_in_the_papers_order_and_others_after_them(write_run) -> None:
    square = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    folder = write_run("k", {name: square for name in ("mine", "UDA", "PH2", "HAM", "DMF")})
    assert table_of(folder).domains == ("HAM", "DMF", "PH2", "UDA", "mine")


def test_an_excluded_domain_has_an_asterisk_and_a_remark_explains_it(write_run) -> None:
    table = table_of(write_run("t", exclude=("UDA",)))
    assert texts(table) == [f"{HAM:.1f}", f"*{UDA:.1f}", f"{AVG:.1f}"]
    assert any("excluded" in remark for remark in table.remarks)


def test_without_an_asterisk_no_remark_explains_it(write_run) -> None:
    assert not any("*" in remark for remark in table_of(write_run("k")).remarks)


def test_the_best_of_each_column_is_marked_even_if_shared(write_run, tmp_path: Path) -> None:
    write_run("a", WORSE)
    write_run("k")
    table = table_of(tmp_path / "runs")
    best = [[cell.best for cell in cells] for _, _, cells in table.rows]
    assert best == [[False, True, False], [True, True, True]]


def test_a_domain_without_images_is_a_dash_and_a_remark_mentions_its_avg(write_run, tmp_path: Path) -> None:
    write_run("a", {"HAM": WORSE["HAM"]})
    write_run("k")
    table = table_of(tmp_path / "runs")
    assert texts(table, 0) == ["33.3", "-", "33.3"]
    assert any("fewer domains in a" in remark for remark in table.remarks)


def test_a_remark_mentions_different_manifests(write_run, tmp_path: Path) -> None:
    write_run("a", manifest_sha256="1")
    write_run("k", manifest_sha256="2")
    assert any("different manifests" in remark for remark in table_of(tmp_path / "runs").remarks)


def test_scores_of_different_splits_do_not_share_a_table(write_run, tmp_path: Path) -> None:
    write_run("a", split="validation")
    write_run("k")
    with pytest.raises(InputError, match="different splits"):
        table_of(tmp_path / "runs")


def test_text_has_complete_lines_and_aligned_columns(write_run, tmp_path: Path) -> None:
    write_run("a-run-with-quite-a-long-name-that-no-terminal-of-80-columns-would-show-in-full", WORSE)
    write_run("[red]k", exclude=("UDA",))
    lines = to_text(table_of(tmp_path / "runs")).splitlines()
    assert lines[0] == "Macro-average recall in %, test images"
    header, first, second = lines[1:4]
    assert first.split()[0].startswith("[red]k") or second.split()[0].startswith("[red]k")
    assert len(header) == len(first) == len(second)
    assert f"*{UDA:.1f}" in first + second
    assert "…" not in "".join(lines)


def test_markdown_is_a_table_with_rows_of_equal_length(write_run, tmp_path: Path) -> None:
    write_run("a|b", WORSE)
    write_run("k", exclude=("UDA",))
    head, rule, first, second, *_ = to_markdown(table_of(tmp_path / "runs")).splitlines()
    assert head == "| run | n_sec | backbone | cls | align | HAM | UDA | avg |"
    assert rule == "| :-- | :-- | :-- | :-- | :-- | --: | --: | --: |"
    assert first.replace("\\|", "").count("|") == rule.count("|")
    assert second == f"| k | a | RN18 | w | w | **{HAM:.1f}** | **\\*{UDA:.1f}** | **{AVG:.1f}** |"


def test_control_characters_and_signs_in_names_are_visible_everywhere(write_run, tmp_path: Path) -> None:
    write_run("k\x1b[2J", {"HAM": WORSE["HAM"], "a|b": WORSE["HAM"]})
    table = table_of(tmp_path / "runs")
    head = to_markdown(table).splitlines()[0]
    assert r"| HAM | a\|b | avg |" in head
    for text in (to_text(table), to_markdown(table), to_latex(table)):
        assert all(sign.isprintable() for line in text.splitlines() for sign in line)
        assert "x1b" in text


def test_report_prints_the_table_without_control_characters_and_returns_the_page(
    write_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run("k")
    page = report(tmp_path / "runs")
    printed = capsys.readouterr().out
    assert printed == to_text(table_of(tmp_path / "runs"))
    assert printed.isprintable() or "\x1b" not in printed
    assert page == tmp_path / "runs" / "report.html"
    assert page.read_text().startswith("<!DOCTYPE html>")
    report(tmp_path / "runs", tmp_path / "elsewhere" / "r.html", "markdown")
    assert capsys.readouterr().out == to_markdown(table_of(tmp_path / "runs"))
    assert (tmp_path / "elsewhere" / "r.html").exists()
