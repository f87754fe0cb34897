"""The tables of results that stand in the README and in docs/examples.md, made from the files of results.

    python docs/site/result_tables.py

writes them into both pages anew, for those who read them where nothing is built; the site makes its own afresh anyway.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from fastccsa.benchmarking.results import CellResult, Results
from fastccsa.benchmarking.table import NOT_MEASURED, format_seconds

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "docs" / "examples.md")
BLOCK = re.compile(r"<!-- results: ([\w-]+) -->\n(.*?)<!-- end of results -->", re.S)

# Of the README's table of losses: what a row is, and the file and the sizes of its cell.
LOSSES = (
    ("32 pairs, D = 512, 7 classes", "zipped-epyc-2core", {"pairs": 32, "weighted": True}),
    ("65,536 pairs, D = 512, 7 classes", "zipped-epyc-2core", {"pairs": 65536, "weighted": True}),
    ("all pairs of 4096 x 4096, D = 512, uniform classes", "all-pairs-epyc-2core", {"rows": 4096, "labels": "uniform"}),
    ("the same with the classes of the paper's Table 1", "all-pairs-epyc-2core", {"rows": 4096, "labels": "table1"}),
    (
        "all pairs of 512 x 512, D = 512, uniform classes",
        "all-pairs-batch-epyc-2core",
        {"rows": 512, "width": 512, "labels": "uniform"},
    ),
    (
        "a batch of 32 against a memory of 65,536, D = 512",
        "all-pairs-memory-epyc-2core",
        {"width": 512, "labels": "uniform"},
    ),
    ("all pairs of 32 x 32, D = 512", "all-pairs-small-epyc-2core", {"rows": 32, "labels": "uniform"}),
)
EAGER = ("eager PyTorch", "torch.cdist", "differences", "chunked")
COMPILED = ("torch.compile", "torch.compile, small graphs")
FLOORS = {
    "floor: bytes streamed": "streaming the bytes",
    "floor: call that does nothing": "a call that does nothing",
    "floor: three products": "three dense products",
    "floor: two products": "two dense products",
}
# Of its table of images: what a row is, and its contestants.
IMAGES = (
    ("fastccsa, from the files / from its store of crops", ("fused", "disk")),
    ("NVIDIA DALI, the paper's steps as they are", ("DALI, literal",)),
    ("torchvision in a DataLoader, PIL / tensors", ("torchvision, PIL", "torchvision, tensors")),
)


def fill(markdown: str) -> str:
    """Put the tables of now between a page's ``<!-- results: NAME -->`` and ``<!-- end of results -->``."""
    return BLOCK.sub(lambda block: f"<!-- results: {block[1]} -->\n{table(block[1])}<!-- end of results -->", markdown)


def table(name: str) -> str:
    """A table, and a line about the runs that it is made of; as a page has them."""
    lines = MADE_HERE[name]() if name in MADE_HERE else example(name)
    return "\n" + "\n".join(lines) + "\n\n"


def example(name: str) -> list[str]:
    """The table of ``examples/results/NAME.json``, made by the example itself."""
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
    """Medians of the losses; of several ways to write a rival, the fastest."""
    lines = [
        "| forward and backward, float32 | fastccsa | eager PyTorch | torch.compile | floor |",
        "|---|---|---|---|---|",
    ]
    files = {name: benchmark(name) for _, name, _ in LOSSES}
    for what, name, sizes in LOSSES:
        cell = next(cell for cell in files[name].cells if sizes.items() <= cell.cell.items())
        floor = cell.floor
        bound = NOT_MEASURED if floor is None else f"{format_seconds(floor.median)}, {FLOORS[floor.contestant]}"
        cells = (what, *(fastest(cell, names) for names in (("fastccsa",), EAGER, COMPILED)), bound)
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", measured_at(files.values())]


def fastest(cell: CellResult, names: Iterable[str]) -> str:
    """The lowest median of some contestants."""
    medians = [row.median for row in cell.measurements if row.contestant in names and row.seconds]
    return format_seconds(min(medians)) if medians else NOT_MEASURED


def images() -> list[str]:
    """Images a second of the ways from camera files to training batches."""
    results = benchmark("images-epyc-2core-camera")
    (cell,) = results.cells
    lines = ["| training images from camera files, up to 3072x2304 | images a second |", "|---|---|"]
    for what, names in IMAGES:
        rows = [cell[name] for name in names]
        rates = (f"{1 / row.median:,.0f}" if row.seconds else NOT_MEASURED for row in rows)
        lines.append(f"| {what} | {' / '.join(rates)} |")
    return [*lines, "", measured_at([results])]


def benchmark(name: str) -> Results:
    """A file of benchmarks/results/."""
    return Results.read(ROOT / "benchmarks" / "results" / f"{name}.json")


def measured_at(results: Iterable[Results]) -> str:
    """Which commits the figures are of."""
    commits = dict.fromkeys(f"`{(one.commit or 'not known')[:7]}`" for one in results)
    return f"Measured at commit {', '.join(commits)}."


MADE_HERE: dict[str, Callable[[], list[str]]] = {"losses": losses, "images": images}

if __name__ == "__main__":
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
