"""A model card as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastccsa.cards.facts import Facts
from fastccsa.cards.sections import Block, Paragraph, Points, Section, sections_of
from fastccsa.system.text import markdown

_ABOUT = (
    "Made by fastccsa from the records of the training. Whatever the records do not hold is listed as open at the end, "
    "and is for the authors to write."
)


def to_markdown(facts: Facts, first: Sequence[Section] = ()) -> str:
    """Return the text of a card, which begins with the sections ``first``."""
    lines = [f"# Model card: {markdown(facts['name'])}", "", _ABOUT]
    for section in (*first, *sections_of(facts)):
        lines += ["", f"## {markdown(section.title)}"]
        for block in section.blocks:
            lines += ["", *_lines(block)]
    return "\n".join(lines) + "\n"


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, Paragraph):
        yield markdown(block.text)
    elif isinstance(block, Points):
        yield from (f"- {markdown(item)}" for item in block.sentences)
    else:
        for cells in (block.head, ("---",) * len(block.head), *block.rows):
            yield f"| {' | '.join(map(markdown, cells))} |"
