"""Data flows one way: no module imports from one that stands below it in the table of docs/architecture.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import fastccsa

PACKAGE = Path(fastccsa.__file__).parent
TABLE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
# The loaders are also reachable as `fastccsa.data.PairLoader`, by an import that waits until they are asked for.
ALLOWED = {("data/__init__.py", "pipeline")}


def levels() -> dict[str, int]:
    """The row of each public module."""
    rows = re.findall(r"^\| (`fastccsa\..*?) \|", TABLE.read_text(encoding="utf-8"), re.M)
    return {name: row for row, names in enumerate(rows) for name in re.findall(r"`(?:fastccsa\.)?(\w+)`", names)}


def imported(path: Path) -> Iterator[str]:
    """The modules of the package that a file names in its imports, wherever these stand."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "fastccsa":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastccsa."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (name.name.split(".")[1] for name in node.names if name.name.startswith("fastccsa."))


def test_every_module_has_its_place() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("[!_]*/__init__.py")}
    assert folders | {path.stem for path in PACKAGE.glob("[!_]*.py")} == set(levels())


def test_nothing_is_imported_from_below() -> None:
    place = levels()
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE)
        name = own.with_suffix("").parts[0]
        if name not in place:
            continue
        for other in imported(path):
            if place.get(other, -1) > place[name] and (own.as_posix(), other) not in ALLOWED:
                wrong.append(f"{own} imports fastccsa.{other}")
    assert not wrong
