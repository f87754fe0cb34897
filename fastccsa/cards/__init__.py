"""Model cards: what a model was trained on, how well it does by domain, and what its authors still have to write."""

from __future__ import annotations

from fastccsa.cards.facts import CARD_JSON, CARD_MARKDOWN
from fastccsa.cards.guidelines import GUIDELINES, Entry, checklist
from fastccsa.cards.sections import Paragraph, Points, Section, Table, sections_of
from fastccsa.cards.write import (
    complete_run_card,
    facts_for_export,
    facts_of_run,
    write_export_card,
    write_run_card,
)

__all__ = [
    "CARD_JSON",
    "CARD_MARKDOWN",
    "GUIDELINES",
    "Entry",
    "Paragraph",
    "Points",
    "Section",
    "Table",
    "checklist",
    "complete_run_card",
    "facts_for_export",
    "facts_of_run",
    "sections_of",
    "write_export_card",
    "write_run_card",
]
