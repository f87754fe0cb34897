"""Options that commands share, and options made from the fields of a configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import click

from fastccsa.images.choices import ImageBackend
from fastccsa.system.choices import literal_of
from fastccsa.system.devices import Amp

DEVICE_HELP = "auto, cpu, cuda or cuda:N."
WORKERS_HELP = "Threads that decode images; 0 lets the image pipeline choose."
BACKEND_HELP = "What decodes the images: fastccsa itself (CPU), DALI, or torchvision, which is slower; auto chooses."
AMP_HELP = "Autocast format."


def choice(literal: Any) -> click.Choice[str]:
    """Return the click type whose values are those of a `Literal`."""
    return click.Choice(get_args(literal))


device_option = click.option("--device", default="auto", show_default=True, help=DEVICE_HELP)
workers_option = click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True, help=WORKERS_HELP)
amp_option = click.option("--amp", type=choice(Amp), default="auto", show_default=True, help=AMP_HELP)
image_backend_option = click.option(
    "--image-backend", type=choice(ImageBackend), default="auto", show_default=True, help=BACKEND_HELP
)


def options_of(config: type) -> Callable[..., Any]:
    """Return a function that makes click options from the fields of a configuration.

    An option has the name, the default and, as far as click can express it, the type of its field: the values of a
    `Literal`, a number, or a pair of flags for a bool.

    Args:
        config: a dataclass.

    Returns:
        A function of the name of a field, a help text, the flags if they are not ``--name``, and settings of click that
        override those derived from the field.
    """
    defaults = {item.name: item.default for item in fields(config)}
    kinds = get_type_hints(config)

    def option(name: str, text: str, *flags: str, **settings: Any) -> Any:
        flags = flags or (f"--{name.replace('_', '-')}",)
        settings = {"default": defaults[name], "show_default": True, "type": _click_type(kinds[name])} | settings
        return click.option(*flags, name, help=text, **settings)

    return option


def _click_type(kind: Any) -> Any:
    """Return the click type of an annotation; None if click is to use the type of the default."""
    if (literal := literal_of(kind)) is not None:
        return choice(literal)
    return next((number for number in (int, float) if number == kind or number in get_args(kind)), None)


allow_changed_option = click.option(
    "--allow-changed-manifest",
    is_flag=True,
    help="Go on even if the manifest changed since the run, or if images to score were trained on.",
)
