"""The tables in docs/results/cpu.md and docs/examples.md, made from the files of results.

    python docs/site/result_tables.py

writes them into both files, for readers of the files themselves; the site fills them in when it is built.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from benchmarks.harness.results import Results, Row  # noqa: E402
from benchmarks.harness.table import NOT_MEASURED, floor_of, format_seconds  # noqa: E402

PAGES = (ROOT / "docs" / "results" / "cpu.md", ROOT / "docs" / "examples.md")
BLOCK = re.compile(r"<!-- results: ([\w-]+) -->\n(.*?)<!-- end of results -->", re.S)

# Rows of the table of losses: a title, the file of results, and the sizes of the cell in it.
UNIFORM = {"width": 512, "labels": "uniform"}
LOSSES = (
    ("32 pairs, D = 512, 7 classes", "zipped-epyc-2core", {"pairs": 32, "weighted": True}),
    ("65,536 pairs, D = 512, 7 classes", "zipped-epyc-2core", {"pairs": 65536, "weighted": True}),
    ("all pairs of 4096 x 4096, D = 512, uniform classes", "all-pairs-epyc-2core", {"rows": 4096, "labels": "uniform"}),
    ("the same with the classes of the paper's Table 1", "all-pairs-epyc-2core", {"rows": 4096, "labels": "table1"}),
    ("all pairs of 512 x 512, D = 512, uniform classes", "all-pairs-batch-epyc-2core", UNIFORM | {"rows": 512}),
    ("a batch of 32 against a memory of 65,536, D = 512", "all-pairs-memory-epyc-2core", UNIFORM),
    ("all pairs of 32 x 32, D = 512", "all-pairs-small-epyc-2core", UNIFORM | {"rows": 32}),
)
COLUMNS = {
    "fastccsa": ("fastccsa",),
    "eager PyTorch": ("eager PyTorch", "torch.cdist", "differences", "chunked"),
    "torch.compile": ("torch.compile", "torch.compile, small graphs"),
}
FLOORS = {
    "floor: bytes streamed": "streaming the bytes",
    "floor: call that does nothing": "a call that does nothing",
    "floor: three products": "three dense products",
    "floor: two products": "two dense products",
}
# Rows of the table of images, and their contestants.
IMAGES = {
    "fastccsa, from the files / from its store of crops": ("fused", "disk"),
    "NVIDIA DALI, the paper's steps as they are": ("DALI, literal",),
    "torchvision in a DataLoader, PIL / tensors": ("torchvision, PIL", "torchvision, tensors"),
}


def fill(markdown: str) -> str:
    """Put the current table between each ``<!-- results: NAME -->`` and ``<!-- end of results -->`` of a page."""
    return BLOCK.sub(lambda block: f"<!-- results: {block[1]} -->\n{table(block[1])}<!-- end of results -->", markdown)


def table(name: str) -> str:
    """Make a table, and a line about the runs behind it, as they stand on a page."""
    lines = TABLES[name]() if name in TABLES else example(name)
    return "\n" + "\n".join(lines) + "\n\n"


def example(name: str) -> list[str]:
    """Make the table of ``examples/results/NAME.json`` with the example's own function."""
    path = ROOT / "examples" / "results" / f"{name}.json"
    if not path.exists():
        return ["*Not measured.*"]
    results = json.loads(path.read_text(encoding="utf-8"))
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        shown = importlib.import_module(name.partition("-")[0]).table(results["runs"])
    finally:
        sys.path.pop(0)
    settings = ", ".join(f"{key} {value}" for key, value in results["settings"].items())
    return [shown, "", f"{len(results['runs'])} runs; settings: {settings}."]


def losses() -> list[str]:
    """Make the table of losses: medians, and for a rival with several variants, the fastest one."""
    lines = [f"| forward and backward, float32 | {' | '.join(COLUMNS)} | floor |", "|---|---|---|---|---|"]
    files = {name: benchmark(name) for _, name, _ in LOSSES}
    for what, name, sizes in LOSSES:
        rows = next(rows for parameters, rows in files[name].cells().values() if sizes.items() <= parameters.items())
        floor = floor_of(rows)
        bound = NOT_MEASURED if floor is None else f"{format_seconds(floor.median)}, {FLOORS[floor.contestant]}"
        lines.append(f"| {' | '.join([what, *(fastest(rows, names) for names in COLUMNS.values()), bound])} |")
    return [*lines, "", measured_at(files.values())]


def fastest(rows: Iterable[Row], names: Iterable[str]) -> str:
    """Return the lowest median of some contestants."""
    medians = [row.median for row in rows if row.contestant in names and row.seconds]
    return format_seconds(min(medians)) if medians else NOT_MEASURED


def images() -> list[str]:
    """Make the table of images per second, from camera files to training batches."""
    results = benchmark("images-epyc-2core-camera")
    ((_, rows),) = results.cells().values()
    rates = {row.contestant: f"{1 / row.median:,.0f}" if row.seconds else NOT_MEASURED for row in rows}
    lines = ["| training images from camera files, up to 3072x2304 | images per second |", "|---|---|"]
    lines += [f"| {what} | {' / '.join(rates[name] for name in names)} |" for what, names in IMAGES.items()]
    return [*lines, "", measured_at([results])]


def benchmark(name: str) -> Results:
    """Read a file of benchmarks/results/."""
    return Results.read(ROOT / "benchmarks" / "results" / f"{name}.json")


def measured_at(results: Iterable[Results]) -> str:
    """Say at which commits the figures were measured."""
    commits = dict.fromkeys(f"`{(one.commit_info['id'] or 'not known')[:7]}`" for one in results)
    return f"Measured at commit {', '.join(commits)}."


TABLES = {"losses": losses, "images": images}

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
