"""Python blocks of the README and of docs/ run, page by page, in one namespace; command lines name real options.

A block that cannot run has the reason in a comment on the line before it: ``<!-- needs: MODULE -->``
skips it if the module is not installed, ``<!-- not run: REASON -->`` always. ``<!-- after: quickstart -->`` runs it in
the folder that the commands of the quick start leave behind (test_shell_blocks.py).
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from benchmarks.commands import BENCHMARKS, bench, flags_of
from fastccsa.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"(?:^<!-- (needs|not run|after): (.+?) -->\n)?^```python\n(.*?)^```$", re.M | re.S)


class Block(NamedTuple):
    """A block of a page."""

    condition: str | None
    value: str | None
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = FENCE.finditer(text)
    return [Block(x[1], x[2], x[3], text[: x.start(3)].count("\n") + 1) for x in found]


def alone(page: Path) -> list[Block]:
    """Return the blocks of a page that need no other page."""
    return [block for block in blocks(page) if block.condition != "after"]


@pytest.mark.parametrize("page", [p for p in PAGES if alone(p)], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """They run in a separate process: they may change torch's state, and must not rely on the imports of this test."""
    lines, left_out = "", []
    for block in alone(page):
        missing = block.condition == "needs" and importlib.util.find_spec(block.value) is None
        if missing or block.condition == "not run":
            left_out.append(f"line {block.line}: {block.condition} {block.value}")
            continue
        # Empty lines before the code, so that a traceback shows the line of the page.
        lines += "\n" * (block.line - lines.count("\n")) + block.code
    script = tmp_path / f"{page.stem}.py"
    script.write_text(lines, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, f"{page}\n{ended.stderr}"
    if left_out:
        pytest.skip(f"ran except {'; '.join(left_out)}")


def command_lines(start: str) -> list[tuple[str, str]]:
    """Return page name and command for each shell line and each code span that begins with `start`."""
    found = []
    for page in PAGES:
        text = re.sub(r"\\\n\s*", " ", page.read_text(encoding="utf-8"))
        for line in re.findall(rf"^ *(?:(?:torchrun|srun)\b[^\n]*? )?{start}([a-z][^\n]*)$", text, re.M):
            found.append((page.name, re.split(r"\s{2,}|\s#| \| ", line)[0]))
        found += [(page.name, code) for code in re.findall(rf"`{start}([a-z][^`\n]*)`", text)]
    return found


@pytest.mark.parametrize(("page", "line"), command_lines("(?:-m )?fastccsa "), ids=lambda x: x[:60])
def test_command_lines_are_understood(page: str, line: str) -> None:
    """The command and each option exist; other tests check what they do."""
    assert_understood(main, page, line)


@pytest.mark.parametrize(("page", "line"), command_lines("python -m benchmarks "), ids=lambda x: x[:60])
def test_benchmarks_are_understood(page: str, line: str) -> None:
    assert_understood(bench, page, line)


def assert_understood(group: click.Command, page: str, line: str) -> None:
    words = [word for word in shlex.split(line) if word != "..."]
    context = click.Context(group, info_name="fastccsa")
    while isinstance(group, click.Group) and words:
        command = group.get_command(context, words.pop(0))
        assert command is not None, f"{page}: {line}"
        context, group = click.Context(command, parent=context), command
    options = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    assert used <= {*options, "--help"}, f"{page}: {line}"


@pytest.mark.parametrize(("page", "line"), command_lines("pytest (?=benchmarks )"), ids=lambda x: x[:60])
def test_options_of_pytest_exist(page: str, line: str) -> None:
    """Options called --benchmark-* are pytest-benchmark's own; the others are the benchmarks'."""
    used = {word.split("=")[0] for word in shlex.split(line) if word.startswith("--")}
    assert {flag for flag in used if not flag.startswith("--benchmark-")} <= set(flags_of(*BENCHMARKS)), (
        f"{page}: {line}"
    )


@pytest.mark.parametrize(
    ("page", "line"), command_lines(r"(?:python|--nproc-per-node \d) (?=[a-z]+/)"), ids=lambda x: x[:60]
)
def test_scripts_are_there(page: str, line: str) -> None:
    """The scripts exist and accept the options they are called with; modules beside them may define the options."""
    script, *words = shlex.split(line)
    source = (ROOT / script).read_text(encoding="utf-8")
    shared = [(ROOT / script).with_name(f"{name}.py") for name in re.findall(r"^from (\w+) import", source, re.M)]
    source += "".join(path.read_text(encoding="utf-8") for path in shared if path.exists())
    unknown = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
    assert not unknown, f"{page}: {line}"


def test_examples_of_docstrings() -> None:
    """Every ``>>>`` in the package runs with the output shown."""
    import doctest
    import importlib

    import fastccsa

    folder = Path(fastccsa.__file__).parent
    tried = 0
    for path in sorted(folder.rglob("*.py")):
        if ">>>" not in path.read_text(encoding="utf-8"):
            continue
        name = ".".join(["fastccsa", *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__")
        result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
        assert result.failed == 0, name
        tried += result.attempted
    assert tried > 0
