"""What the site takes from elsewhere than docs/, as MkDocs asks for it.

Pages are made from the click commands, from the results in benchmarks/ and examples/, and from CHANGELOG.md,
CONTRIBUTING.md and CITATION.cff. Formulas become MathML, which browsers draw themselves.
"""

from __future__ import annotations

import html
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    for name, content in PAGES.items():
        files.append(File.generated(config, name, content=content()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the results of an example where a page says ``<!-- results: NAME -->``."""
    return re.sub(r"<!-- results: ([\w-]+) -->", lambda found: example_results(found[1]), markdown)


def on_page_content(content: str, **_: Any) -> str:
    """Formulas, and the roles of docstrings, as HTML."""
    content = re.sub(
        r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda x: mathml(x[1], "inline"), content, flags=re.S
    )
    content = re.sub(
        r'<div class="arithmatex">\\\[(.*?)\\\]</div>', lambda x: mathml(x[1], "block"), content, flags=re.S
    )
    content = re.sub(r"<p>\.\. math::\s*(.*?)</p>", lambda x: mathml(x[1], "block"), content, flags=re.S)
    return re.sub(r":(?:func|class|meth|mod):(<code>)", r"\1", content)


def mathml(latex: str, display: str) -> str:
    """A formula of a page."""
    return convert(html.unescape(latex).strip(), display=display)


# ---- the command line ----


def command_line() -> str:
    """A section for each command, from its own help."""
    from fastccsa.cli import main

    lines = [
        "# Command line",
        "",
        "Made from the commands' own help. Bad input ends in one plain line and exit status 2; the same command again "
        "goes on with what was interrupted.",
    ]
    for path, command in commands(main, ("fastccsa",)):
        context = click.Context(command, info_name=" ".join(path))
        lines += ["", f"## {' '.join(path)}", "", inspect.cleandoc(command.help or "").replace("\b\n", ""), ""]
        rows = [record for option in command.get_params(context) if (record := option.get_help_record(context))]
        if rows:
            lines += ["| option | meaning |", "|---|---|"]
            escape = str.maketrans({"|": r"\|", "<": "&lt;"})
            lines += [f"| `{name}` | {meaning.translate(escape)} |" for name, meaning in rows]
    return "\n".join(lines) + "\n"


def commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands below a group, in its order."""
    context = click.Context(group, info_name=path[-1])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif command is not None:
            yield (*path, name), command


# ---- results ----


def benchmarks() -> str:
    """How they are measured, and the table of each file of results."""
    results = ROOT / "benchmarks" / "results"
    lines = [text_of("benchmarks/results/README.md")(), "", "# Tables", ""]
    tables = [benchmark_table(path) for path in sorted(results.glob("*.json"))]
    lines += [table for table in tables if table] or ["Nothing has been measured yet."]
    return "\n\n".join(lines) + "\n"


def benchmark_table(path: Path) -> str:
    """What `fastccsa bench show` prints of a file, or nothing if another command reads it."""
    from fastccsa import InputError
    from fastccsa.benchmarking.results import Results
    from fastccsa.benchmarking.table import table

    try:
        shown = table(Results.read(path))
    except InputError:
        return f"## {path.stem}\n\n```json\n{json.dumps(json.loads(path.read_text()), indent=1)[:20000]}\n```"
    return f"## {path.stem}\n\n```text\n{shown}\n```"


def example_results(name: str) -> str:
    """The table of ``examples/results/NAME.json``, made by the example itself."""
    path = ROOT / "examples" / "results" / f"{name}.json"
    if not path.exists():
        return "*Not measured.*"
    results = json.loads(path.read_text(encoding="utf-8"))
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        table = importlib.import_module(name.partition("-")[0]).table
    finally:
        sys.path.pop(0)
    settings = ", ".join(f"{key} {value}" for key, value in results["settings"].items())
    return f"{table(results['runs'])}\n\nSettings: {settings}."


# ---- files of the checkout ----


def text_of(name: str) -> Callable[[], str]:
    """A page that is a file of the checkout; its links into docs/ are links between pages."""
    return lambda: re.sub(r"\]\((\.\./)*docs/", "](", (ROOT / name).read_text(encoding="utf-8"))


def citation() -> str:
    """How to cite, with the file that tools read."""
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    return f"# Cite\n\nPlease cite the paper, and this software by `CITATION.cff`:\n\n```yaml\n{cff}```\n"


PAGES: dict[str, Callable[[], str]] = {
    "command-line.md": command_line,
    "benchmarks.md": benchmarks,
    "changelog.md": text_of("CHANGELOG.md"),
    "contributing.md": text_of("CONTRIBUTING.md"),
    "citation.md": citation,
}
