"""Options with a fixed set of values: the `Literal` annotation of a field is the only list of its values."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastccsa.system.errors import InputError


def choices_of(config: type) -> dict[str, tuple[Any, ...]]:
    """Return the allowed values of each field of ``config`` that is annotated with a `Literal`, by field name."""
    return {name: get_args(kind) for name, kind in get_type_hints(config).items() if get_origin(kind) is Literal}


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
