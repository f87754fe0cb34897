"""The loss in plain PyTorch: the public name of `fastccsa.losses.reference`."""

from fastccsa.losses.reference import *  # noqa: F403
from fastccsa.losses.reference import __all__ as __all__
from fastccsa.losses.reference import __doc__ as __doc__
