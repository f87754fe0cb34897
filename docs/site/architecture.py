"""The picture of docs/architecture.md: the packages in the order of its table, as cards laid out by the style sheet."""

from __future__ import annotations

import re
from collections.abc import Iterator

MARK = "<!-- picture: the packages in the order of the table -->"
ROW = re.compile(r"^\| (`fastccsa\..*?) \| (.*?) \|", re.M)
# Parts of C++ by the package that calls them.
COMPILED = {"ops": "csrc/zipped, all_pairs, augment", "sampling": "csrc/sampler", "images": "csrc/jpeg"}


def draw(markdown: str) -> str:
    """Put the picture in the place of its mark, drawn from the table that follows."""
    return markdown.replace(MARK, f'<ol class="packages">{"".join(cards(markdown))}</ol>')


def cards(markdown: str) -> Iterator[str]:
    """An item of the list for each row of the table."""
    for names, knows in ROW.findall(markdown):
        modules = re.findall(r"`(?:fastccsa\.)?([\w.]+)`", names)
        compiled = ", ".join(COMPILED[name] for name in modules if name in COMPILED)
        title = ", ".join(modules) + (f" <code>{compiled}</code>" if compiled else "")
        yield f"<li><b>{title}</b> {re.sub(r' [(].*[)]|`', '', knows)}</li>"
