"""The settings that a sweep varies: a span of numbers, or a list of values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice, product
from typing import Any, get_type_hints

from fastccsa.runs.config import TrainConfig
from fastccsa.system.errors import InputError
from fastccsa.system.schema import build

# Settings that decide which images judge a trial, by which rule, or what a trial's number means.
FIXED = ("seed", "selection", "primary", "exclude", "manifest_sha256")
_MOST_COMBINATIONS = 1000  # of values of other settings that a value is tried with
_SPAN = re.compile(r"(?P<low>[^,:]+?)\.\.(?P<high>[^,:]+?)(?P<log>:log)?")


@dataclass(frozen=True)
class Span:
    """All numbers from ``low`` to ``high``, drawn evenly or, with ``log``, evenly in their logarithm."""

    name: str
    low: float
    high: float
    log: bool
    whole: bool

    @property
    def examples(self) -> tuple[float, ...]:
        """Values to check a configuration with."""
        return (self.low, self.high)


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    name: str
    values: tuple[Any, ...]

    @property
    def examples(self) -> tuple[Any, ...]:
        """Values to check a configuration with."""
        return self.values


Setting = Span | Choice


def parse_setting(text: str) -> Setting:
    """Parse ``NAME=LOW..HIGH``, ``NAME=LOW..HIGH:log`` or ``NAME=A,B,C``.

    Raises:
        InputError: it is something else, the name is no setting that can be varied, or a value has another type.
    """
    name, equals, values = text.partition("=")
    name, values = name.strip().replace("-", "_"), values.strip()
    kinds = get_type_hints(TrainConfig, include_extras=True)
    can_vary = [
        item.name
        for item in fields(TrainConfig)
        if item.metadata.get("changes_result", True) and item.name not in FIXED
    ]
    if not equals or not values:
        raise InputError(f"{text!r} names no values: give NAME=LOW..HIGH, NAME=LOW..HIGH:log or NAME=A,B,C")
    if name not in can_vary:
        raise InputError(f"{name!r} cannot be varied; choose among {', '.join(can_vary)}")
    span = _SPAN.fullmatch(values)
    if span is None:
        found = tuple(_value(kinds[name], name, each) for each in values.split(","))
        if len(set(map(str, found))) < len(found):
            raise InputError(f"{text!r} has one value twice")
        return Choice(name, found)
    low, high = (_value(kinds[name], name, span[end]) for end in ("low", "high"))
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in (low, high)):
        raise InputError(f"{text!r} is a span, but {name} is no number: give its values separated by commas")
    log = span["log"] is not None
    if not low < high or (log and low <= 0):
        raise InputError(f"{text!r} is empty: give a lower and a higher number{', above 0 for :log' if log else ''}")
    whole = all(type(each) is int for each in (low, high)) and _is_whole(kinds[name], name)
    return Span(name, low, high, log, whole)


def _is_whole(kind: Any, name: str) -> bool:
    """Return whether a setting takes whole numbers only."""
    try:
        build(kind, 0.5, name)
    except InputError:
        return True
    return False


def _value(kind: Any, name: str, text: str) -> Any:
    """Return a value of a setting from its text, in the type of the setting."""
    text = text.strip()
    try:
        value = json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        value = None if text == "none" else text
    problem: InputError | None = None
    for candidate in (value, text):
        try:
            return build(kind, candidate, name)
        except InputError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def check_settings(settings: Sequence[Setting], given: Mapping[str, Any]) -> None:
    """Check that each value of each setting makes a valid configuration, with at least one choice of the others.

    Raises:
        InputError: a setting is varied twice, or a value is not valid.
    """
    names = [setting.name for setting in settings]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} is varied twice")
    for number, setting in enumerate(settings):
        others = [other.examples for other in (*settings[:number], *settings[number + 1 :])]
        for value in setting.examples:
            if setting.name == "n_sec" and value == 0 and len(setting.examples) > 1:
                raise InputError("n_sec 0 is judged by other images than any other n_sec: sweep it by itself")
            _check_value(given, setting.name, value, names[:number] + names[number + 1 :], others)


def _check_value(
    given: Mapping[str, Any], name: str, value: Any, names: Sequence[str], others: Sequence[Sequence[Any]]
) -> None:
    problem: InputError | None = None
    for choice in islice(product(*others), _MOST_COMBINATIONS):
        try:
            TrainConfig(**{**given, **dict(zip(names, choice, strict=True)), name: value})
        except InputError as error:
            problem = error
        else:
            return
    assert problem is not None
    raise problem
