"""What the site is made of, without building it: the tables of results."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from fastccsa.benchmarking.show import show

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
    shown = show(path)
    assert content["command"] in shown
    assert f"commit {content['commit']}" in shown


def test_the_page_of_examples_has_the_tables_of_their_results(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is built they are read as they stand."""
    monkeypatch.syspath_prepend(ROOT / "docs" / "site")
    tables = importlib.import_module("example_tables")
    page = tables.PAGE.read_text(encoding="utf-8")
    behind = []
    for name, shown in tables.BLOCK.findall(page):
        fresh = tables.table(name)
        if re.findall(r"^\d+ runs;", shown, re.M) != re.findall(r"^\d+ runs;", fresh, re.M):
            behind.append(name)
            continue
        assert shown == fresh, name
    if behind:
        pytest.skip(f"more runs than the page tells of: python docs/site/example_tables.py ({', '.join(behind)})")
