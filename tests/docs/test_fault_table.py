"""Every test that docs/results/training.md names for a fault exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_fault_has_a_test_that_exists() -> None:
    page = (ROOT / "docs" / "results" / "training.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in page.split("## Faults")[1].splitlines() if line.startswith("|")][2:]
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    assert len(rows) >= 16
    for row in rows:
        named = row[-2]
        assert named.strip() == "the same" or re.search("`test_|tests/soak/", named), named
        for name in re.findall(r"`(test_\w+)`", named):
            assert f"def {name}(" in tests, name
        for path in re.findall(r"`(tests/[\w/.]+)`", named):
            assert (ROOT / path).exists(), path
