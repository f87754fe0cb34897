"""Options that are texts: the `Literal` annotation of a field is the only list of its values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastccsa.system.errors import InputError


def choices_of(config: type) -> dict[str, tuple[Any, ...]]:
    """Return the allowed values of each field of ``config`` that is annotated with a `Literal`, by field name.

    They include None where the annotation is a union with None.
    """
    found = {}
    for name, kind in get_type_hints(config).items():
        literal = literal_of(kind)
        if literal is not None:
            found[name] = get_args(literal) + (() if literal is kind else (None,))
    return found


def literal_of(kind: Any) -> Any:
    """Return the `Literal` that an annotation is, or that it forms a union of with None; else None."""
    if get_origin(kind) is Literal:
        return kind
    parts = get_args(kind)
    found = [part for part in parts if get_origin(part) is Literal]
    return found[0] if len(parts) == 2 and found and type(None) in parts else None


def check_choice(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Check that ``value`` is one of ``choices``.

    Raises:
        InputError: ``value`` is something else; the message names the option and the choices.
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r}; choose one of {', '.join(map(repr, choices))}")


def check_choices(config: Any) -> None:
    """Check the value of every field of ``config`` that is annotated with a `Literal`.

    Raises:
        InputError: a value is not allowed; the message names the field and the allowed values.
    """
    for name, allowed in choices_of(type(config)).items():
        check_choice(name, getattr(config, name), allowed)


def check_not_empty(config: Any, names: Iterable[str]) -> None:
    """Check that no text among the fields ``names`` of ``config`` is empty; None is possible.

    Raises:
        InputError: a text, or one of several, is empty or blank; the message names the field.
    """
    for name in names:
        value = getattr(config, name)
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str) and not text.strip():
                raise InputError(f"{name} is empty: give a value, or omit it")
