"""The quick start as a newcomer sees it: a fresh clone and virtual environment, and the time of every command.

    python benchmarks/quickstart.py --folder /scratch/fastccsa

clones this checkout's last commit into the folder, which must not exist, and runs the commands of the README and the
quick start there: the installation, `make demo`, `make test`, `make docs`. The sentence between the two marks in the
README and in docs/quickstart.md is rewritten. If a command fails, nothing is written, and the end of its output is
shown. Needs what the README's two commands need, and 15 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "quickstart.md")
MARKS = ("<!-- from benchmarks/quickstart.py -->", "<!-- until here -->")
INSTALLED = ".venv/.installed"  # what `make demo` and `make test` make first
COMMANDS = (f"make {INSTALLED}", "make demo", "make test", "make docs")
FACTS = """
import json, platform, torch
from fastccsa import _build_info
from fastccsa.system import machine
here = machine.describe(torch.device("cpu"))
print(json.dumps({
    "cores": here["cores"], "cpu": here["cpu"], "memory": here["memory_bytes"],
    "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
    "python": platform.python_version(), "torch": torch.__version__,
    "code": "with CUDA code" if _build_info.CUDA_VERSION else "without CUDA code",
}))
"""


def run(command: str, folder: Path) -> float:
    """Run it in the clone; the seconds it took."""
    print(f"$ {command}", flush=True)
    began = time.monotonic()
    ended = subprocess.run(command.split(), cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{ended.stdout[-4000:]}\n{ended.stderr[-4000:]}\n{command} ended with {ended.returncode}")
    return time.monotonic() - began


def clock(seconds: float) -> str:
    """``125`` as ``2 min 5 s``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def machine(folder: Path, load: float) -> str:
    """The machine it ran on, as the installed package sees it."""
    python = folder / ".venv" / "bin" / "python"
    ended = subprocess.run([python, "-c", FACTS], cwd="/", capture_output=True, text=True, check=True)
    facts = json.loads(ended.stdout)
    return (
        f"{facts['cores']} cores of {facts['cpu']}, {facts['memory'] / 2**30:.0f} GiB, {facts['gpu']}; "
        f"Python {facts['python']}, torch {facts['torch']}, {facts['code']}; load {load:.1f} before"
    )


def sentence(seconds: dict[str, float], where: str, commit: str) -> str:
    """What the pages say."""
    took = {command: clock(of) for command, of in seconds.items()}
    return (
        f"{took.pop(f'make {INSTALLED}')} to install, then "
        + ", ".join(f"{time} for `{command}`" for command, time in took.items())
        + f", at commit `{commit}` ({where})."
    )


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the clone goes; must not exist")
    folder = parser.parse_args().folder.resolve()
    if folder.exists():
        parser.error(f"{folder} exists already: name a new folder")
    load = os.getloadavg()[0]
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()
    seconds = {command: run(command, folder) for command in COMMANDS}
    told = sentence(seconds, machine(folder, load), commit)
    begin, end = (re.escape(mark) for mark in MARKS)
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        text = re.sub(f"{begin}.*?{end}", lambda _: f"{MARKS[0]}\n{told}\n{MARKS[1]}", text, flags=re.S)
        page.write_text(text, encoding="utf-8")
    print(told)


if __name__ == "__main__":
    main()
