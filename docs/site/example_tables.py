"""The tables in docs/examples.md, each made by its example of the runs in examples/results/.

    python docs/site/example_tables.py

writes them into the page anew, for those who read it where nothing is built; the site makes them afresh anyway.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "examples.md"
BLOCK = re.compile(r"<!-- results: ([\w-]+) -->\n(.*?)<!-- end of results -->", re.S)


def fill(markdown: str) -> str:
    """Put the tables of now between a page's ``<!-- results: NAME -->`` and ``<!-- end of results -->``."""
    return BLOCK.sub(lambda block: f"<!-- results: {block[1]} -->\n{table(block[1])}<!-- end of results -->", markdown)


def table(name: str) -> str:
    """What ``examples/results/NAME.json`` holds: its table, and a line about the runs; lines as a page has them."""
    path = ROOT / "examples" / "results" / f"{name}.json"
    if not path.exists():
        return "\n*Not measured.*\n\n"
    results = json.loads(path.read_text(encoding="utf-8"))
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        shown = importlib.import_module(name.partition("-")[0]).table(results["runs"])
    finally:
        sys.path.pop(0)
    settings = ", ".join(f"{key} {value}" for key, value in results["settings"].items())
    return f"\n{shown}\n\n{len(results['runs'])} runs; settings: {settings}.\n\n"


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
