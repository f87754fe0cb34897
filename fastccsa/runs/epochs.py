"""The record of a finished epoch: a line of ``metrics.jsonl``, and an item of a checkpoint's history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from fastccsa.system.schema import Count, Mismatch, Ordinal, Positive, Share, build


@dataclass(frozen=True)
class _Epoch:
    """The fields that are read somewhere; those after ``validation_recall`` are missing from records of old versions.

    The loss and its terms are means over the epoch, the recalls are in [0, 1]. ``selection`` has the recall as each
    rule of selection averages it. ``unseen`` and ``test`` have the recalls on validation images of domains left out and
    on test images, which no rule within the run looks at.
    """

    epoch: Ordinal
    loss: float
    validation: dict[str, Share]
    validation_recall: Share
    classification1: float | None = None
    classification2: float | None = None
    alignment: float | None = None
    separation: float | None = None
    lr: Positive | None = None
    seconds: Positive = 0.0
    images_per_second: Positive = 0.0
    broken_images: Count = 0
    selection: dict[str, Share] = field(default_factory=dict)
    unseen: dict[str, Share] = field(default_factory=dict)
    test: dict[str, Share] = field(default_factory=dict)


_FIELDS = {item.name for item in fields(_Epoch)}


def read_epoch(record: Any, at: str = "") -> dict[str, Any]:
    """Check the record of an epoch, and return it. Fields that this version does not know are left as they are.

    Raises:
        InputError: a field is missing, or has another type or range; the message does not name the file.
    """
    if not isinstance(record, Mapping):
        raise Mismatch(f"{at or 'it'} is not the record of an epoch")
    build(_Epoch, {name: value for name, value in record.items() if name in _FIELDS}, at)
    return dict(record)
