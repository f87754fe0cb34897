"""What the site is made of, without building it: the tables of results."""

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
    """By the example of the file's name, and a page shows it."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    results = json.loads(path.read_text(encoding="utf-8"))
    shown = importlib.import_module(path.stem.partition("-")[0]).table(results["runs"])
    assert shown.startswith("| ")
    assert f"<!-- results: {path.stem} -->" in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_results_of_benchmarks_make_a_table(path: Path) -> None:
    """With what they were measured on below it."""
    content = json.loads(path.read_text(encoding="utf-8"))
    shown = table(Results.read(path))
    assert content["command"] in shown
    assert f"commit {content['commit_info']['id']}" in shown


def test_pages_have_the_tables_of_their_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """The README and the examples' page, which are read as they stand where nothing is built."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    tables = importlib.import_module("result_tables")
    shown = {name: text for page in tables.PAGES for name, text in tables.BLOCK.findall(page.read_text("utf-8"))}
    assert {*tables.MADE_HERE, *(path.stem for path in RESULTS)} <= shown.keys()
    behind = []
    for name, text in shown.items():
        fresh = tables.table(name)
        about = r"^(?:\d+ runs;|Measured at) .*$"
        if re.findall(about, text, re.M) == re.findall(about, fresh, re.M):
            assert text == fresh, name
        else:
            behind.append(name)
    if behind:
        pytest.skip(f"there are newer results than a page's: python docs/site/result_tables.py ({', '.join(behind)})")
