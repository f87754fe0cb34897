"""The model card of an experiment's shown run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastccsa.cards import CARD_MARKDOWN, Section, facts_of_run, sections_of
from fastccsa.models import CARD_FILE
from fastccsa.reporting.groups import RunGroup


@dataclass(frozen=True)
class CardView:
    """A model card.

    Attributes:
        seed: seed of the run.
        file: the card as text, if it was written: its folder and name.
        sections: what it says.
    """

    seed: int
    file: str | None
    sections: Sequence[Section]


def card_of(group: RunGroup) -> CardView | None:
    """Return the card of the shown run's model; None if there is no model.

    Raises:
        InputError: a file in the run folder is broken.
    """
    run = group.shown
    if not (run.folder / CARD_FILE).exists():
        return None
    there = (run.folder / CARD_MARKDOWN).exists()
    return CardView(
        seed=run.config.seed,
        file=f"{run.name}/{CARD_MARKDOWN}" if there else None,
        sections=sections_of(facts_of_run(run.folder)),
    )
