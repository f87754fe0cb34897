"""The tables of results on the site, without building it."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from benchmarks.harness.results import Results
from benchmarks.harness.table import table

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "examples" / "results").glob("*.json"))
BENCHMARKS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_of_examples_make_a_table(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of the same name makes it, and a page shows it."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    results = json.loads(path.read_text(encoding="utf-8"))
    shown = importlib.import_module(path.stem.partition("-")[0]).table(results["runs"])
    assert shown.startswith("| ")
    assert f"<!-- results: {path.stem} -->" in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*RESULTS, *(ROOT / "docs" / "results").glob("*.json")], ids=lambda path: path.stem)
def test_results_have_a_line_for_each_run(path: Path) -> None:
    """This keeps the files short and their differences readable."""
    text = path.read_text(encoding="utf-8")
    fields = json.loads(text)
    lists = [fields[name] for name in ("runs", "rows", "scores", "differences", "arms") if name in fields]
    rows = [row for each in lists for row in each]
    assert rows
    lines = [line.rstrip(",") for line in text.splitlines()]
    # The braces, a line per field, the closing brackets of the lists, and their rows.
    assert len(lines) == 2 + len(fields) + len(lists) + len(rows)
    assert [json.loads(line) for line in lines if line.startswith("{") and len(line) > 1] == rows


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_results_of_benchmarks_make_a_table(path: Path) -> None:
    """The command and the commit are below the table."""
    content = json.loads(path.read_text(encoding="utf-8"))
    shown = table(Results.read(path))
    assert content["command"] in shown
    assert f"commit {content['commit_info']['id']}" in shown


def test_pages_have_the_tables_of_their_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """People also read these pages without building the site."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    tables = importlib.import_module("result_tables")
    shown = {name: text for page in tables.PAGES for name, text in tables.BLOCK.findall(page.read_text("utf-8"))}
    assert {*tables.TABLES, *(path.stem for path in RESULTS)} <= shown.keys()
    behind = []
    for name, text in shown.items():
        fresh = tables.table(name)
        about = r"^(?:\d+ runs;|Measured at) .*$"
        if re.findall(about, text, re.M) == re.findall(about, fresh, re.M):
            assert text == fresh, name
        else:
            behind.append(name)
    if behind:
        pytest.skip(f"results are newer than a page: run python docs/site/result_tables.py ({', '.join(behind)})")


def test_the_picture_of_the_architecture_has_a_card_for_each_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    drawn = importlib.import_module("architecture").draw(page)
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `fastccsa.")]
    titles = re.findall(r"<li><b>(.*?)(?: <code>.*?)?</b>", drawn)
    assert len(rows) > 10
    assert titles == [re.sub(r"`(?:fastccsa\.)?|`", "", row).strip() for row in rows]
