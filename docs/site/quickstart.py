"""The quick start as a newcomer runs it: in a fresh clone and virtual environment, with the time of every command.

    python docs/site/quickstart.py --folder /scratch/fastccsa

clones this checkout's last commit into a new folder and runs the commands of the quick start there: the installation,
`make demo`, `make test`, `make docs`. Then it rewrites the sentence between the two marks in docs/quickstart.md. If a
command fails, nothing is written, and the end of its output is shown. Needs what the README's two commands need, and
15 GB of disk.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "quickstart.md"
MARKS = re.compile(r"(<!-- from docs/site/quickstart.py -->\n).*?(\n<!-- until here -->)", re.S)
INSTALL = "make .venv/.test"  # what `make demo` and `make test` install
COMMANDS = (INSTALL, "make demo", "make test", "make docs")
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
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Where to put the clone; a new folder.")
def main(folder: Path) -> None:
    """Time the commands in a new folder, and write the sentence into the page."""
    if folder.exists():
        raise click.UsageError(f"{folder} exists already: name a folder that does not")
    folder, load = folder.resolve(), os.getloadavg()[0]
    _output("git", "clone", "--quiet", str(ROOT), str(folder), folder=ROOT)
    installed, *others = [f"{_time(command, folder)} for `{command}`" for command in COMMANDS]
    facts = _output(str(folder / ".venv" / "bin" / "python"), "-c", FACTS, folder=Path("/"))
    commit = _output("git", "rev-parse", "--short", "HEAD", folder=folder)
    installed = installed.removesuffix(f" for `{INSTALL}`")
    sentence = (
        f"{installed} to install, then {', '.join(others)}, at commit `{commit}` ({facts}; load {load:.1f} before)."
    )
    text = MARKS.sub(lambda marks: f"{marks[1]}{sentence}{marks[2]}", PAGE.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")
    click.echo(sentence)


def _output(*command: str, folder: Path) -> str:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def _time(command: str, folder: Path) -> str:
    """Run a command in the clone, and return its duration as text."""
    click.echo(f"$ {command}")
    start = time.monotonic()
    done = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True, check=False)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    if done.returncode:
        sys.exit(f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{command} ended with {done.returncode}")
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


if __name__ == "__main__":
    main()
