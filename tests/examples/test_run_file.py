"""The file of results that grows run by run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

Example = Callable[[str], ModuleType]


def test_each_run_has_a_line(example: Example, tmp_path: Path) -> None:
    runs = [{"seed": seed, "macro": 0.1 * seed, "rare": [1, 2]} for seed in range(3)]
    path = tmp_path / "results.json"
    kept = example("run_file").RunFile(path, {"steps": 10})
    for run in runs:
        kept.add(run)
    text = path.read_text()
    assert json.loads(text)["runs"] == runs
    assert [json.loads(line.rstrip(",")) for line in text.splitlines() if line.startswith('{"')] == runs
