"""Ranges of numbers: the values of a configuration that are possible, and what is said about others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from fastccsa.system.errors import InputError


@dataclass(frozen=True)
class Range:
    """The numbers from ``low`` to ``high``.

    Attributes:
        low, high: the ends.
        low_excluded, high_excluded: whether the ends are not among them.
    """

    low: float
    high: float
    low_excluded: bool = False
    high_excluded: bool = False

    def contains(self, value: float) -> bool:
        """Return whether ``value`` is in the range; NaN never is."""
        above = self.low < value if self.low_excluded else self.low <= value
        below = value < self.high if self.high_excluded else value <= self.high
        return bool(above and below)

    def describe(self, value: float) -> str:
        """Say what is wrong with a ``value`` outside the range."""
        if value < self.low or (value == self.low and self.low_excluded):
            return f"{'it must be above' if self.low_excluded else 'it must be at least'} {self.low:,}"
        if value > self.high or (value == self.high and self.high_excluded):
            return f"{'it must be below' if self.high_excluded else 'it must be at most'} {self.high:,}"
        return "it must be a number"


def check_ranges(config: Any, ranges: Mapping[str, Range]) -> None:
    """Check the numbers of a configuration; None is always possible.

    Args:
        config: an object with the fields.
        ranges: the range of each field.

    Raises:
        InputError: a value is outside its range, or not a number; the message names the field.
    """
    for name, allowed in ranges.items():
        value: Any = getattr(config, name)
        if value is None:
            continue
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number:
            raise InputError(f"{name} is {value!r}: it must be a number")
        if not allowed.contains(value):
            raise InputError(f"{name} is {value}: {allowed.describe(value)}")


SEEDS = Range(0, 2**63 - 1)
SIZES = Range(8, 4096)  # px
WORKERS = Range(0, 1024)
COUNTS = Range(0, 10**6)  # of epochs, batches and the like
