"""The picture in docs/architecture.md: one card per package, in the order of its table, laid out by the style sheet."""

from __future__ import annotations

import re
from collections.abc import Iterator

MARK = "<!-- picture: the packages in the order of the table -->"
ROW = re.compile(r"^\| (`fastccsa\..*?) \| (.*?) \|", re.M)
# Folders of C++ code, by the package that calls them.
COMPILED = {"ops": "csrc/zipped, all_pairs, augment", "sampling": "csrc/sampler", "images": "csrc/jpeg"}


def draw(markdown: str) -> str:
    """Replace the mark by the picture, drawn from the table below it."""
    return markdown.replace(MARK, f'<ol class="packages">{"".join(cards(markdown))}</ol>')


def cards(markdown: str) -> Iterator[str]:
    """Yield a list item for each row of the table."""
    for names, knows in ROW.findall(markdown):
        modules = re.findall(r"`(?:fastccsa\.)?([\w.]+)`", names)
        compiled = ", ".join(COMPILED[name] for name in modules if name in COMPILED)
        title = ", ".join(modules) + (f" <code>{compiled}</code>" if compiled else "")
        yield f"<li><b>{title}</b> {re.sub(r' [(].*[)]|`', '', knows)}</li>"
