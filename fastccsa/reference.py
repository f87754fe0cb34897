"""The public name of `fastccsa.losses.reference`: the loss in plain PyTorch."""

from fastccsa.losses.reference import *  # noqa: F403
from fastccsa.losses.reference import __all__ as __all__
