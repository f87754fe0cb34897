"""What the site is made of, without building it: the tables of the examples' results."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = sorted((ROOT / "examples" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_of_examples_make_a_table(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the example of the file's name, and a page shows it."""
    monkeypatch.syspath_prepend(ROOT / "examples")
    results = json.loads(path.read_text(encoding="utf-8"))
    shown = importlib.import_module(path.stem.partition("-")[0]).table(results["runs"])
    assert shown.startswith("| ")
    assert f"<!-- results: {path.stem} -->" in (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
