"""The quick start as a newcomer sees it: a fresh clone and virtual environment, every command timed, kept as a page.

    python benchmarks/quickstart.py --folder /scratch/fastccsa

clones this checkout's last commit into the folder, which must not be there, and runs in it what the README and the
quick start name: the installation, `make demo`, `make test`, `make docs`. docs/results/quickstart.md becomes the
transcript, and the sentence between the README's two marks is written anew. Where a command fails nothing is written,
and the end of what it said is shown. Needs what the README's two commands need, and 15 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results" / "quickstart.md"
MARKS = ("<!-- from benchmarks/quickstart.py -->", "<!-- until here -->")
INSTALLED = ".venv/.installed"  # what `make demo` and `make test` make first
# How many of its last lines are shown of each: all of the demo, of the tests how many passed.
COMMANDS = {f"make {INSTALLED}": 0, "make demo": 1000, "make test": 1, "make docs": 0}
FACTS = """
import json, platform, torch
from fastccsa import _build_info, machine
here = machine.describe(torch.device("cpu"))
print(json.dumps({
    "cores": here["cores"], "cpu": here["cpu"], "memory": here["memory_bytes"],
    "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
    "python": platform.python_version(), "torch": torch.__version__,
    "code": "with CUDA code" if _build_info.CUDA_VERSION else "without CUDA code",
}))
"""


@dataclass(frozen=True)
class Step:
    """A command that came to its end."""

    command: str
    seconds: float
    shown: str


def run(command: str, folder: Path, lines: int) -> Step:
    """Run it in the clone; its standard output, less the clone's own place on this machine."""
    print(f"$ {command}", flush=True)
    began = time.monotonic()
    # Progress bars and the package installer write to the standard error.
    ended = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if ended.returncode:
        sys.exit(f"{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}\n{command} ended with {ended.returncode}")
    said = ended.stdout.replace(str(folder), "~/fastccsa").rstrip().splitlines()
    return Step(command, seconds, "\n".join(said[-lines:] if lines else []))


def clock(seconds: float) -> str:
    """``125`` as ``2 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def machine(folder: Path, load: float) -> str:
    """What it ran on, told by what was installed."""
    python = folder / ".venv" / "bin" / "python"
    ended = subprocess.run([python, "-c", FACTS], cwd="/", capture_output=True, text=True, check=True)
    facts = json.loads(ended.stdout)
    return (
        f"{facts['cores']} cores of {facts['cpu']}, {facts['memory'] / 2**30:.0f} GiB, {facts['gpu']}; "
        f"Python {facts['python']}, torch {facts['torch']}, {facts['code']}; load {load:.1f} before"
    )


def page(steps: list[Step], where: str, commit: str) -> str:
    """The transcript in Markdown."""
    day = datetime.now(timezone.utc).date()
    lines = [
        "# The quick start, as it ran",
        "",
        f"A fresh clone of commit `{commit}` in a folder of its own, on {day}: {where}.",
        f"`make {INSTALLED}` is what the other commands do first; `make docs` fails on any warning, broken links among "
        "them. Made by `python benchmarks/quickstart.py`.",
        "",
        "| command | time |",
        "|---|---|",
        *(f"| `{step.command}` | {clock(step.seconds)} |" for step in steps),
    ]
    for step in steps:
        if step.shown:
            lines += ["", f"## {step.command}", "", "```text", step.shown, "```"]
    return "\n".join(lines) + "\n"


def sentence(steps: list[Step], where: str) -> str:
    """For the README."""
    took = {step.command: clock(step.seconds) for step in steps}
    return (
        f"{took.pop(f'make {INSTALLED}')} to install, then "
        + ", ".join(f"{time} for `{command}`" for command, time in took.items())
        + f" ({where}): [the transcript](docs/results/quickstart.md)."
    )


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the clone goes; must not be there")
    folder = parser.parse_args().folder.resolve()
    if folder.exists():
        parser.error(f"{folder} is there already: name a folder that is not")
    load = os.getloadavg()[0]
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    steps = [run(command, folder, lines) for command, lines in COMMANDS.items()]
    where = machine(folder, load)
    PAGE.write_text(page(steps, where, commit), encoding="utf-8")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    begin, end = (re.escape(mark) for mark in MARKS)
    told = f"{MARKS[0]}\n{sentence(steps, where)}\n{MARKS[1]}"
    readme.write_text(re.sub(f"{begin}.*?{end}", lambda _: told, text, flags=re.S), encoding="utf-8")
    print(sentence(steps, where))


if __name__ == "__main__":
    main()
