"""The loss as functions: the public name of `fastccsa.losses.functional`."""

from fastccsa.losses.functional import *  # noqa: F403
from fastccsa.losses.functional import __all__ as __all__
from fastccsa.losses.functional import __doc__ as __doc__
