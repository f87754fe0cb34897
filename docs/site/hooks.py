"""MkDocs hooks, which add what the site shows beyond the files in docs/.

Pages are made from the click commands, from the results in benchmarks/ and examples/, and from CHANGELOG.md,
CONTRIBUTING.md and CITATION.cff. The picture of the architecture is drawn from its table. Formulas become MathML, which
browsers render without a script. The search also works in pages that were opened from the disk.
"""

from __future__ import annotations

import html
import inspect
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
from architecture import draw
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from result_tables import fill  # also makes `benchmarks` importable

from benchmarks.harness.chart import chart
from benchmarks.harness.results import Results
from benchmarks.harness.table import table

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, content in PAGES.items():
        files.append(File.generated(config, name, content=content()))
    for name, svg in charts().items():
        files.append(File.generated(config, f"charts/{name}.svg", content=svg))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in the tables of the examples' current results, and the picture of the architecture."""
    return draw(fill(markdown))


def on_page_content(content: str, **_: Any) -> str:
    """Turn formulas, and the roles of docstrings, into HTML."""
    content = re.sub(
        r'<span class="arithmatex">\\\((.*?)\\\)</span>', lambda x: mathml(x[1], "inline"), content, flags=re.S
    )
    content = re.sub(
        r'<div class="arithmatex">\\\[(.*?)\\\]</div>', lambda x: mathml(x[1], "block"), content, flags=re.S
    )
    content = re.sub(r"<p>\.\. math::\s*(.*?)</p>", lambda x: mathml(x[1], "block"), content, flags=re.S)
    return re.sub(r":(?:func|class|meth|mod):(<code>)", r"\1", content)


def on_post_build(config: MkDocsConfig, **_: Any) -> None:
    """Write the index of the search once more, as the script that pages load when they were opened from the disk."""
    folder = Path(config.site_dir) / "search"
    index = (folder / "search_index.json").read_text(encoding="utf-8")
    (folder / "search_index.js").write_text(f"var __index = {index}", encoding="utf-8")


def mathml(latex: str, display: str) -> str:
    """Convert a formula."""
    return convert(html.unescape(latex).strip(), display=display)


# ---- the command line ----


def command_line() -> str:
    """Make a section for each command from its help."""
    from fastccsa.cli import main

    lines = [
        "# Command line",
        "",
        "Generated from the help of the commands. After bad input, a command prints one line and exits with status 2. "
        "Repeating a command resumes interrupted work.",
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
    """Yield all commands below a group, in its order."""
    context = click.Context(group, info_name=path[-1])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif command is not None:
            yield (*path, name), command


# ---- results ----


def benchmarks() -> str:
    """Make the page of the benchmarks: their README, then the table and chart of each file of results."""
    lines = [text_of("benchmarks/README.md")(), "# Tables"]
    for name, results in benchmark_results().items():
        lines += [f"## {name}", f"```text\n{table(results)}\n```"]
        if name in charts():
            lines.append(f"![Times of {name}](charts/{name}.svg)")
    return "\n\n".join(lines) + "\n"


@cache
def charts() -> dict[str, str]:
    """Draw the results in which a size varies: SVG by file name."""
    return {name: svg for name, results in benchmark_results().items() if (svg := chart(results)) is not None}


def benchmark_results() -> dict[str, Results]:
    """Read the files in benchmarks/results/, by name."""
    paths = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    return {path.stem: Results.read(path) for path in paths}


# ---- files of the checkout ----


def text_of(name: str) -> Callable[[], str]:
    """Make a page from a file of the checkout; links into docs/ and to other such files become links between pages."""

    def text() -> str:
        content = re.sub(r"\]\((\.\./)*docs/", "](", (ROOT / name).read_text(encoding="utf-8"))
        return content.replace("](CHANGELOG.md)", "](changelog.md)").replace("](SECURITY.md)", "](security.md)")

    return text


def citation() -> str:
    """Make the page on citing, which includes CITATION.cff."""
    cff = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    return f"# Cite\n\nPlease cite the paper, and this software by `CITATION.cff`:\n\n```yaml\n{cff}```\n"


PAGES: dict[str, Callable[[], str]] = {
    "command-line.md": command_line,
    "benchmarks.md": benchmarks,
    "changelog.md": text_of("CHANGELOG.md"),
    "contributing.md": text_of("CONTRIBUTING.md"),
    "security.md": text_of("SECURITY.md"),
    "citation.md": citation,
}
