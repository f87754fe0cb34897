"""The public name of `fastccsa.losses.functional`: the loss as functions."""

from fastccsa.losses.functional import *  # noqa: F403
from fastccsa.losses.functional import __all__ as __all__
