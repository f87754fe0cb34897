"""The classes and pairs that an experiment sampled, and the weights of its loss, as shaded tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastccsa.runs.records import Run
from fastccsa.runs.sampling_record import SamplingRecord, Vector

Text = Callable[[float], str]
Row = tuple[str, tuple[tuple[str, float], ...]]


@dataclass(frozen=True)
class HeatMap:
    """A table of numbers.

    Attributes:
        title: meaning of the numbers.
        corner: meaning of the rows and columns.
        columns: heads of the columns.
        rows: head, and the text and shade in percent of each cell.
    """

    title: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Sampling:
    """Tables of one run; ``note`` says what is missing, if anything."""

    maps: tuple[HeatMap, ...]
    note: str = ""


def sampling_of(run: Run) -> Sampling:
    """Return the tables of ``run``'s record.

    Raises:
        InputError: the record is broken.
    """
    record = SamplingRecord.read(run.folder)
    if record is None:
        return Sampling((), "The run has no sampling.json: it was made by an older version.")
    maps = [_heat_map("Training images", "domain \\ class", record.classes, record.domains, record.counts, _count)]
    maps.append(_by_class(record))
    if record.joint is not None:
        maps.append(
            _heat_map("Pairs, P(y1, y2) in %", "y1 \\ y2", record.classes, record.classes, record.joint, _percent)
        )
    if record.pair_weight is not None:
        title = "Weights of the alignment"
        maps.append(_heat_map(title, "y1 \\ y2", record.classes, record.classes, record.pair_weight, _weight))
    elif record.joint is not None:
        return Sampling(tuple(maps), "The alignment is not weighted.")
    return Sampling(tuple(maps))


def _by_class(record: SamplingRecord) -> HeatMap:
    """Return probabilities and cross-entropy weights by class, one row each, shaded within their kind."""
    rows = []
    for name, values in (("P(y1), %", record.first), ("P(y2), %", record.second)):
        if values is not None:
            rows += _rows([name], [values], _percent)
    for name, values in (("weight, y1", record.class_weight1), ("weight, y2", record.class_weight2)):
        if values is not None:
            rows += _rows([name], [values], _weight)
    return HeatMap("Classes", "", record.classes, tuple(rows))


def _heat_map(
    title: str, corner: str, columns: Sequence[str], names: Sequence[str], values: Sequence[Vector], text: Text
) -> HeatMap:
    return HeatMap(title, corner, tuple(columns), tuple(_rows(names, values, text)))


def _rows(names: Sequence[str], values: Sequence[Vector], text: Text) -> list[Row]:
    """Return rows whose cells are shaded by their logarithm, since counts and weights span orders of magnitude."""
    positive = [value for row in values for value in row if value > 0]
    low, high = (math.log(min(positive)), math.log(max(positive))) if positive else (0.0, 0.0)

    def shade(value: float) -> float:
        if value <= 0:
            return 0.0
        return 100.0 if high == low else round(15 + 85 * (math.log(value) - low) / (high - low), 1)

    return [
        (name, tuple((text(value), shade(value)) for value in row)) for name, row in zip(names, values, strict=True)
    ]


def _count(value: float) -> str:
    return f"{value:.0f}" if value else ""


def _percent(probability: float) -> str:
    return f"{100 * probability:.2g}" if 0 < probability < 0.0995 else f"{100 * probability:.0f}"


def _weight(weight: float) -> str:
    return f"{weight:.2g}" if 0 < weight < 9.95 else f"{weight:.0f}"
