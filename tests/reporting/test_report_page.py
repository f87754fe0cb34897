from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import Page, charts_of

from fastccsa.reporting import read_runs, score_table
from fastccsa.reporting.page import render_page

History = list[dict[str, Any]]

HUNDREDTH = 0.0101  # of a point, to which the coordinates of drawings are truncated


def page_of(folder: Path) -> str:
    runs = read_runs(folder)
    return render_page(runs, score_table(runs))


@pytest.fixture
def two_runs(write_run, history: History, tmp_path: Path) -> Path:
    """The baseline A, trained only on HAM, and K without UDA."""
    shared = ("epoch", "lr", "loss", "validation_recall")
    baseline = [
        {key: record[key] for key in shared} | {"validation": {"HAM": record["validation"]["HAM"]}}
        for record in history
    ]
    write_run("A", history=baseline, n_sec=0, alignment="-")
    write_run("K", exclude=("UDA",), init="runs/A")
    return tmp_path / "runs"


def test_nothing_is_loaded_from_elsewhere(two_runs: Path) -> None:
    text = page_of(two_runs)
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    references = [value for _, name, value in page.attributes if name in ("src", "href", "xlink:href")]
    assert references
    assert all(value.startswith("#") for value in references)
    assert not re.search(r"@import|url\((?!#)", text)


def test_internal_references_have_a_target(two_runs: Path) -> None:
    text = page_of(two_runs)
    ids = {value for _, name, value in Page(text).attributes if name == "id"}
    wanted = set(re.findall(r"url\(#([^)]*)\)", text)) | set(re.findall(r'href="#([^"]*)"', text))
    assert wanted <= ids


def test_single_runs_have_scores_but_no_numbers_of_the_paper(two_runs: Path) -> None:
    table = score_table(read_runs(two_runs))
    (shown,) = Page(page_of(two_runs)).tables["scores"]
    assert shown[0] == list(table.header)
    assert shown[1:] == [[name, *settings, *(cell.text for cell in cells)] for name, settings, cells in table.rows]
    assert shown[2][-2].startswith("*")


def test_confusion_matrices_hold_the_counts_of_classes_with_images(
    two_runs: Path, confusions: dict[str, list[list[int]]]
) -> None:
    matrices = Page(page_of(two_runs)).tables["matrix"]
    assert len(matrices) == 4  # two runs by two domains, HAM first
    head, *rows = matrices[0]
    assert head == ["", "nv", "mel", "bcc", "recall"]
    assert [row[0] for row in rows] == ["nv", "mel", "bcc"]
    assert [[int(count or 0) for count in row[1:-1]] for row in rows] == confusions["HAM"]
    assert [row[-1] for row in rows] == ["93", "83", "69"]
    assert [row[0] for row in matrices[1][1:]] == ["nv", "mel"]


def line_of(svg: ET.Element, colour: str) -> np.ndarray:
    (path,) = [path for path in svg.iter("path") if f"stroke: var({colour});" in path.attrib["style"] + ";"]
    return np.array(re.findall(r"[ML] ([-\d.]+) ([-\d.]+)", path.attrib["d"]), dtype=np.float64)


def test_each_loss_term_has_its_curve_and_the_curve_has_its_values(two_runs: Path, history: History) -> None:
    charts = charts_of(page_of(two_runs))
    names = {"Loss": "loss", "Alignment (same class)": "alignment", "Separation (different classes)": "separation"}
    for title, term in names.items():
        points = line_of(charts[f"{title} of K by epoch"], "--series-0")
        values = np.array([record[term] for record in history])
        assert len(points) == len(values)
        # Larger values are higher on the page: an affine map with a negative slope.
        slope, offset = np.polyfit(values, points[:, 1], 1)
        assert slope < 0
        np.testing.assert_allclose(slope * values + offset, points[:, 1], atol=HUNDREDTH)
    assert "Loss of A by epoch" in charts
    assert "Alignment (same class) of A by epoch" not in charts


def test_validation_curves_are_by_domain_and_their_mean(two_runs: Path) -> None:
    svg = charts_of(page_of(two_runs))["Validation recall, %, of K by epoch"]
    ham, uda, mean = (line_of(svg, colour) for colour in ("--series-0", "--series-1", "--ink"))
    np.testing.assert_allclose((ham + uda) / 2, mean, atol=HUNDREDTH)
    assert (uda[:, 1] > ham[:, 1]).all()  # lower recall, lower on the page


def test_the_page_follows_dark_mode_and_the_width_of_a_phone(two_runs: Path) -> None:
    text = page_of(two_runs)
    assert "prefers-color-scheme: dark" in text
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    for svg in charts_of(text).values():
        assert not re.search(r"#[0-9a-f]{6}", ET.tostring(svg, encoding="unicode"))


def test_names_and_notes_are_text_not_markup(write_run, tmp_path: Path) -> None:
    write_run('<i>"k" & co')
    (tmp_path / "runs" / "note.txt").write_text("a < b & c")
    text = page_of(tmp_path / "runs")
    assert "<i>" not in text
    assert "a &lt; b &amp; c" in text
    assert Page(text).tables["scores"][0][1][0] == '<i>"k" & co'
    assert any('<i>"k" & co' in label for label in charts_of(text))


def test_settings_show_the_configuration(two_runs: Path) -> None:
    settings = dict(Page(page_of(two_runs)).tables["settings"][1])
    assert settings["init"] == "runs/A"
    assert settings["exclude"] == "UDA"
    assert (settings["recipe"], settings["margin"]) == ("balanced", "1.2")


def test_a_run_without_curves_says_so(write_run) -> None:
    folder = write_run("k")
    (folder / "metrics.jsonl").unlink()
    text = page_of(folder)
    assert "metrics.jsonl is missing" in text
    assert "<svg" not in text


def test_the_same_runs_give_the_same_bytes(two_runs: Path) -> None:
    assert page_of(two_runs) == page_of(two_runs)
