from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from fastccsa.system.choices import check_choices, choices_of
from fastccsa.system.errors import InputError

Colour = Literal["red", "green"]


@dataclass
class Config:
    colour: Colour = "red"
    count: int | Literal["all"] = "all"


def test_only_fields_that_are_a_literal_have_choices() -> None:
    assert choices_of(Config) == {"colour": ("red", "green")}


def test_a_value_outside_the_choices_is_an_error_that_names_them() -> None:
    check_choices(Config("green"))
    with pytest.raises(InputError, match=r"^colour is 'blue'; choose one of 'red', 'green'$"):
        check_choices(Config("blue"))
