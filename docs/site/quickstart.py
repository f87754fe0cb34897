"""The quick start as a newcomer sees it: a fresh clone and virtual environment, every command timed, kept as a page.

    python docs/site/quickstart.py --folder /scratch/fastccsa

clones this checkout's last commit into a new folder, and runs there what the README and the quick start name: the
installation, `make demo`, `make test`, `make docs`. docs/results/quickstart.md becomes the transcript, and the sentence
between the README's two marks is rewritten. Where a command fails nothing is written, and the end of its output is
shown. Needs what the README's two commands need, and 15 GB of disk.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
PAGE, README = ROOT / "docs" / "results" / "quickstart.md", ROOT / "README.md"
MARKS = re.compile(r"(<!-- from docs/site/quickstart.py -->\n).*?(\n<!-- until here -->)", re.S)
INSTALL = "make .venv/.installed"  # what `make demo` and `make test` do first
# How many of its last lines are shown of each: all of the demo, of the tests how many passed.
COMMANDS = {INSTALL: 0, "make demo": 1000, "make test": 1, "make docs": 0}
FACTS = """
import json, platform, torch
from fastccsa import _build_info
from fastccsa.system import machine
here = machine.describe(torch.device("cpu"))
gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
code = "with CUDA code" if _build_info.CUDA_VERSION else "without CUDA code"
print(f"{here['cores']} cores of {here['cpu']}, {here['memory_bytes'] / 2**30:.0f} GiB, {gpu}; "
      f"Python {platform.python_version()}, torch {torch.__version__}, {code}")
"""


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where the clone goes; a new folder.")
def main(folder: Path) -> None:
    """Time the commands in a new folder, and write the page and the README's sentence."""
    if folder.exists():
        raise click.UsageError(f"{folder} exists already: name a folder that does not")
    folder, load = folder.resolve(), os.getloadavg()[0]
    _said("git", "clone", "--quiet", str(ROOT), str(folder), where=ROOT)
    steps = [(command, *_timed(command, folder, lines)) for command, lines in COMMANDS.items()]
    facts = _said(str(folder / ".venv" / "bin" / "python"), "-c", FACTS, where=Path("/"))
    commit, machine = _said("git", "rev-parse", "--short", "HEAD", where=folder), f"{facts}; load {load:.1f} before"
    page = [
        "# The quick start, as it ran",
        "",
        f"A fresh clone of commit `{commit}` in its own folder, on {datetime.now(timezone.utc).date()}: {machine}.",
        f"`{INSTALL}` is what the other commands do first; `make docs` fails on any warning, broken links among them. "
        "Made by `python docs/site/quickstart.py`.",
        "",
        "| command | time |",
        "|---|---|",
        *(f"| `{command}` | {took} |" for command, took, _ in steps),
    ]
    for command, _, shown in steps:
        page += ["", f"## {command}", "", "```text", shown, "```"] if shown else []
    PAGE.write_text("\n".join(page) + "\n", encoding="utf-8")
    (_, installed, _), *others = steps
    times = ", ".join(f"{took} for `{command}`" for command, took, _ in others)
    sentence = f"{installed} to install, then {times} ({machine}): [the transcript](docs/results/quickstart.md)."
    text = MARKS.sub(lambda marks: f"{marks[1]}{sentence}{marks[2]}", README.read_text(encoding="utf-8"))
    README.write_text(text, encoding="utf-8")
    click.echo(sentence)


def _said(*command: str, where: Path) -> str:
    return subprocess.run(command, cwd=where, capture_output=True, text=True, check=True).stdout.strip()


def _timed(command: str, folder: Path, lines: int) -> tuple[str, str]:
    """How long a command took in the clone, and the end of its output, without the clone's place on this machine."""
    click.echo(f"$ {command}")
    began = time.monotonic()
    # Progress bars and the package installer write to the standard error.
    ended = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True, check=False)
    minutes, seconds = divmod(round(time.monotonic() - began), 60)
    if ended.returncode:
        sys.exit(f"{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}\n{command} ended with {ended.returncode}")
    shown = ended.stdout.replace(str(folder), "~/fastccsa").rstrip().splitlines()[-lines:] if lines else []
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s", "\n".join(shown)


if __name__ == "__main__":
    main()
