"""Options that commands share, and options made from the fields of a configuration."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

import click

from fastccsa.images.choices import ImageBackend
from fastccsa.system.choices import literal_of
from fastccsa.system.devices import Amp
from fastccsa.system.ranges import SEEDS, SIZES, WORKERS

# Upper limits: a larger number is a typing mistake, and would be found out only when memory or patience runs out.
MOST_BATCH, MOST_IMAGES, MOST_PAIRS, MOST_RUNS = 2**20, 10**7, 1024, 1000

DEVICE_HELP = "auto, cpu, cuda or cuda:N."
WORKERS_HELP = "Threads that decode images; 0 lets the image pipeline choose."
BACKEND_HELP = "What decodes the images: fastccsa itself (CPU), DALI, or torchvision, which is slower; auto chooses."
AMP_HELP = "Autocast format."


def choice(literal: Any) -> click.Choice[str]:
    """Return the click type whose values are those of a `Literal`."""
    return click.Choice(get_args(literal))


class FiniteRange(click.FloatRange):
    """A number in a range, and not NaN, which click lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number, or fail with a message that names the range."""
        if math.isnan(number := float(click.FLOAT.convert(value, param, ctx))):
            self.fail(f"{value} is not in the range {self._describe_range()}.", param, ctx)
        return super().convert(number, param, ctx)


size_type = click.IntRange(int(SIZES.low), int(SIZES.high))
seed_type = click.IntRange(int(SEEDS.low), int(SEEDS.high))
# The seed of pictures and of splits, which NumPy's and scikit-learn's generators take.
data_seed_type = click.IntRange(0, 2**32 - 1)

device_option = click.option("--device", default="auto", show_default=True, help=DEVICE_HELP)
workers_option = click.option(
    "--workers",
    type=click.IntRange(int(WORKERS.low), int(WORKERS.high)),
    default=0,
    show_default=True,
    help=WORKERS_HELP,
)
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


def given_options() -> dict[str, str]:
    """Return the options that the user gave to the current command: the flag by the name of the parameter."""
    context = click.get_current_context()
    return {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and context.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE
    }
