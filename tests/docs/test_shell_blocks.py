"""Commands in shell blocks: the quick start's run, and all others are of a kind that has a reason not to.

Whether their options exist is tested in test_code_blocks.py.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fastccsa import Manifest
from fastccsa.cli import main

ROOT = Path(__file__).resolve().parents[2]
QUICK_START = ROOT / "docs" / "quickstart.md"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"(?:^<!-- (run) -->\n)?^```(?:sh|bash|console)\n(.*?)^```$", re.M | re.S)

# Why commands that begin like this do not run here.
NOT_RUN = {
    r"(\.venv/bin/)?(python -m )?pip |uv |git clone |apt|python -m build|auditwheel|cosign|gh ": "needs the network",
    r"make ": "installs packages, then takes minutes; tests/test_makefile.py tests the Makefile, and CI runs it",
    r"source |export |cd |for |done|[a-z]+=|#!": "changes the shell, or is part of a script for a cluster",
    r"torchrun |srun ": "starts several processes, which tests/training/test_ranks.py does",
    r"(\w+=\S+ )?python tests/|tests/|benchmarks/": "takes minutes",
    r"python examples/": "needs data or takes minutes; tests/examples runs the parts",
    r"python docs/site/": "rewrites the documentation from long runs; test_pictures.py tests the parts",
    r"pytest |python -m benchmarks|fastccsa bench ": "takes minutes; tests/benchmarks runs the quick form",
    r"(python -m )?fastccsa |python -c ": "needs collections, a finished run or minutes; tests/cli and others run it",
}


def shell_blocks(page: Path) -> list[tuple[bool, str]]:
    """Return whether each shell block of a page is to run, and its text."""
    return [(bool(found[1]), found[2]) for found in FENCE.finditer(page.read_text(encoding="utf-8"))]


def commands(block: str) -> Iterator[str]:
    """Yield the commands of a block, one a line, without comments."""
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        command = re.sub(r"(^|\s+)#(?!!).*$", "", line).strip()
        if command:
            yield command


@pytest.mark.parametrize("page", [page for page in PAGES if shell_blocks(page)], ids=lambda page: page.name)
def test_commands_run_or_have_a_reason_not_to(page: Path) -> None:
    for runs, block in shell_blocks(page):
        for command in commands(block):
            assert (runs and page == QUICK_START) or any(re.match(kind, command) for kind in NOT_RUN), (
                f"{page}: `{command}` neither runs in the tests nor is of a kind in NOT_RUN"
            )


def test_every_block_of_code_names_its_language() -> None:
    """Otherwise commands and Python would not be found by the tests that run them."""
    for page in PAGES:
        inside = False
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
            if line.startswith("```"):
                assert inside or line != "```", f"{page}, line {number}: name the language, or `text`"
                inside = not inside


@pytest.fixture(scope="module")
def after_the_quick_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the marked commands of the quick start have run, with one epoch of each training."""
    folder = tmp_path_factory.mktemp("quickstart")
    draw_photos(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("TORCH_HOME", str(folder / "torch"))
        patch.setenv("https_proxy", "http://127.0.0.1:9")  # no ImageNet weights, which would have to be downloaded
        for command in (command for runs, block in shell_blocks(QUICK_START) if runs for command in commands(block)):
            program, *words = shlex.split(re.sub(r"--epochs \d+", "--epochs 1", command))
            if program != "pip":
                assert program == "fastccsa", command
                ended = CliRunner().invoke(main, words)
                assert ended.exit_code == 0, f"{command}\n{ended.output}"
    return folder


def draw_photos(folder: Path) -> None:
    """Draw photos/<domain>/<class>/<number>.jpg, blots whose colour shows the class."""
    random = np.random.default_rng(0)
    for domain in ("north", "south", "west"):
        for channel, label in enumerate(("nevus", "melanoma", "keratosis")):
            (folder / domain / label).mkdir(parents=True)
            for number in range(10):
                blots = random.integers(0, 120, (6, 6, 3), dtype=np.uint8)
                blots[..., channel] += 120
                image = Image.fromarray(blots).resize((72, 72), Image.Resampling.BICUBIC)
                image.save(folder / domain / label / f"{number}.jpg")


def test_the_quick_start_leads_from_a_folder_of_photos_to_a_report(after_the_quick_start: Path) -> None:
    manifest = Manifest.read(after_the_quick_start / "manifest.csv")
    assert manifest.domains == ("north", "south", "west")
    assert len(manifest.table) == 90
    report = (after_the_quick_start / "runs" / "report.html").read_text(encoding="utf-8")
    for text in ("baseline", "ccsa", "north", "south", "west", "nevus", "melanoma", "keratosis"):
        assert text in report
    assert (after_the_quick_start / "preview.png").exists()


def test_blocks_that_come_after_the_quick_start_run(after_the_quick_start: Path) -> None:
    pattern = re.compile(r"^<!-- after: quickstart -->\n^```python\n(.*?)^```$", re.M | re.S)
    blocks = [(page, code) for page in PAGES for code in pattern.findall(page.read_text(encoding="utf-8"))]
    assert blocks
    for page, code in blocks:
        ended = subprocess.run(
            [sys.executable, "-c", code], cwd=after_the_quick_start, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{page}\n{ended.stderr}"
