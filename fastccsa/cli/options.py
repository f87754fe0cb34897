"""What the commands share: options whose defaults and allowed values are those of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from fastccsa.runs.config import TrainConfig
from fastccsa.system.choices import choices_of

IMAGE_BACKEND = "What decodes the images: fastccsa itself (CPU), DALI, or torchvision, which is slower; auto chooses."


def choice(field: str) -> click.Choice[Any]:
    """Make the click type for the values of a field of `TrainConfig`."""
    return click.Choice(choices_of(TrainConfig)[field])


def options_of(config: type) -> Callable[..., Any]:
    """Make a function that turns a field of the dataclass ``config`` into a click option.

    It takes the field's name and the help text; default and choices are the field's. A field that is true or false is
    switched by ``--name/--no-name``, unless ``flags`` has other words. Other arguments of `click.option` take
    precedence.
    """
    defaults, choices = {field.name: field.default for field in fields(config)}, choices_of(config)

    def option(name: str, text: str, flags: str | None = None, **settings: Any) -> Any:
        words = name.replace("_", "-")
        flags = flags or (f"--{words}/--no-{words}" if isinstance(defaults[name], bool) else f"--{words}")
        settings = {"default": defaults[name], "show_default": True} | settings
        if name in choices:
            settings["type"] = click.Choice(choices[name])
        return click.option(flags, name, help=text, **settings)

    return option
