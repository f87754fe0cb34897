"""Values that were read from a file, checked against the annotations of a dataclass before anything uses them.

`build` makes an instance of a dataclass, or a value of any other annotation, from what `json.loads` returned. The types
are compared exactly: text is not a number, a number is not a truth value, and numbers are finite. Limits are written
into the annotation, as in ``Annotated[float, Range(0, 1)]``.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import types
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from fastccsa.system.errors import InputError
from fastccsa.system.ranges import Range

T = TypeVar("T")

DEEPEST = 16  # levels of nesting of a value without a schema
LONGEST = 1 << 20  # characters of a text
_INTEGERS = (-(2**63), 2**63 - 1)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_NOT_IN_FILE_NAMES = re.compile(r"[\x00\ud800-\udc7f\udd00-\udfff]")  # \udc80 to \udcff are bytes that are not UTF-8


@dataclasses.dataclass(frozen=True)
class FileName:
    """Marks a text as a path, which may hold any character of a file name."""


@dataclasses.dataclass(frozen=True)
class Filled:
    """Marks a tuple, a mapping or a text that must not be empty."""


Count = Annotated[int, Range(0)]
Ordinal = Annotated[int, Range(1)]
Share = Annotated[float, Range(0, 1 + 1e-6)]  # a weighted mean may round to slightly more than 1
Positive = Annotated[float, Range(0)]
PathText = Annotated[str, FileName()]


class Mismatch(InputError):
    """A value differs from its schema; the message names the field, but not yet the file."""


def build(kind: type[T], value: Any, at: str = "", ignore: Sequence[str] = ()) -> T:
    """Return ``value`` as an instance of ``kind``.

    Args:
        kind: a dataclass, or any annotation made of dataclasses, bool, int, float, str, None, Literal, unions, tuples,
            and mappings with text as keys. A JSON list becomes a tuple. Any accepts everything that JSON can hold.
        value: what was read.
        at: name of the value, for messages.
        ignore: names of fields in the file that the dataclass ``kind`` does not have.

    Raises:
        InputError: the value, or one inside it, has another type or is out of its range; the message names it.
    """
    if ignore and isinstance(value, Mapping):
        value = {name: item for name, item in value.items() if name not in ignore}
    return cast(T, _build(kind, value, at, ()))


def _build(kind: Any, value: Any, at: str, marks: tuple[Any, ...]) -> Any:
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *own = get_args(kind)
        return _build(inner, value, at, (*marks, *own))
    if kind is Any:
        return plain(value, at)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, at)
    if origin is Literal:
        if not any(type(choice) is type(value) and choice == value for choice in get_args(kind)):
            raise _mismatch(at, value, f"one of {', '.join(map(repr, get_args(kind)))}")
        return value
    if origin in (Union, types.UnionType):
        return _union(get_args(kind), value, at, marks)
    if origin is tuple:
        return _tuple(get_args(kind), value, at, marks)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(get_args(kind)[1], value, at, marks)
    return _scalar(kind, value, at, marks)


def _scalar(kind: Any, value: Any, at: str, marks: tuple[Any, ...]) -> Any:
    if kind in (None, type(None)):
        if value is not None:
            raise _mismatch(at, value, "null")
    elif kind is bool:
        if type(value) is not bool:
            raise _mismatch(at, value, "true or false")
    elif kind is int:
        if type(value) is not int or not _INTEGERS[0] <= value <= _INTEGERS[1]:
            raise _mismatch(at, value, "a whole number")
        _check_range(value, at, marks)
    elif kind is float:
        if type(value) not in (int, float) or not _is_finite(value):
            raise _mismatch(at, value, "a number")
        _check_range(value, at, marks)
    elif kind is str:
        _check_text(value, at, marks)
    else:
        raise TypeError(f"no values of {kind!r} can be read")
    return value


def _check_range(value: float, at: str, marks: tuple[Any, ...]) -> None:
    for mark in marks:
        if isinstance(mark, Range) and not mark.contains(value):
            raise _mismatch(at, value, f"{mark}")


def _check_text(value: Any, at: str, marks: tuple[Any, ...]) -> None:
    if type(value) is not str:
        raise _mismatch(at, value, "text")
    is_path = any(isinstance(mark, FileName) for mark in marks)
    if _NOT_IN_FILE_NAMES.search(value) if is_path else _CONTROL.search(value) or _SURROGATE.search(value):
        raise _mismatch(at, value, "text without control characters")
    if len(value) > LONGEST:
        raise _mismatch(at, value, f"at most {LONGEST} characters long")
    _check_filled(value, at, marks)


def _check_filled(value: Any, at: str, marks: tuple[Any, ...]) -> None:
    if not value and any(isinstance(mark, Filled) for mark in marks):
        raise _mismatch(at, value, "filled in")


def _union(kinds: tuple[Any, ...], value: Any, at: str, marks: tuple[Any, ...]) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    if len(others) == 1:
        return _build(others[0], value, at, marks)
    reasons = []
    for kind in others:
        try:
            return _build(kind, value, at, marks)
        except Mismatch as error:
            reasons.append(str(error).partition(": it must be ")[2])
    raise _mismatch(at, value, " or ".join(reasons))


def _tuple(kinds: tuple[Any, ...], value: Any, at: str, marks: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _mismatch(at, value, "a list")
    _check_filled(value, at, marks)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_build(kinds[0], item, f"{at}[{number}]", ()) for number, item in enumerate(value))
    if len(value) != len(kinds):
        raise _mismatch(at, value, f"a list of {len(kinds)}")
    return tuple(
        _build(kind, item, f"{at}[{number}]", ()) for number, (kind, item) in enumerate(zip(kinds, value, strict=True))
    )


def _mapping(kind: Any, value: Any, at: str, marks: tuple[Any, ...]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _mismatch(at, value, "an object with names and values")
    _check_filled(value, at, marks)
    for name in value:
        _check_text(name, f"a name in {at}" if at else "a name", ())
    return {name: _build(kind, item, _inside(at, name), ()) for name, item in value.items()}


def _dataclass(kind: Any, value: Any, at: str) -> Any:
    if not isinstance(value, Mapping):
        raise _mismatch(at, value, "an object with names and values")
    hints, known = _hints(kind), {item.name: item for item in dataclasses.fields(kind)}
    where = f" in {at}" if at else ""
    if unknown := sorted(reprlib.repr(name) for name in value if name not in known):
        raise Mismatch(f"it has fields that this version does not know{where}: {', '.join(unknown[:5])}")
    missing = [
        name
        for name, item in known.items()
        if name not in value and item.default is item.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise Mismatch(f"{', '.join(missing)} is missing{where}")
    values = {name: _build(hints[name], item, _inside(at, name), ()) for name, item in value.items()}
    return kind(**values)


@lru_cache(maxsize=64)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def plain(value: Any, at: str = "", depth: int = DEEPEST) -> Any:
    """Return ``value``, which has no schema, with text that can be written as UTF-8.

    Raises:
        InputError: it is nested too deeply, or has a value that JSON does not.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth == 0:
        raise Mismatch(f"{at or 'it'} is nested more than {DEEPEST} levels deep")
    if isinstance(value, list | tuple):
        return [plain(item, at, depth - 1) for item in value]
    if isinstance(value, Mapping):
        return {plain(name, at, 1): plain(item, _inside(at, str(name)), depth - 1) for name, item in value.items()}
    raise _mismatch(at, value, "a value that JSON can hold")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond the range of float
        return False


def _inside(at: str, name: str) -> str:
    shown = name if name.isidentifier() else reprlib.repr(name)
    return f"{at}.{shown}" if at else shown


def _mismatch(at: str, value: Any, expected: str) -> Mismatch:
    return Mismatch(f"{at or 'its content'} is {_short(value)}: it must be {expected}")


_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 2, 3, 3, 60, 60


def _short(value: Any) -> str:
    return _SHORT.repr(value)
