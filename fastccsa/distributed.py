"""The public name of `fastccsa.losses.distributed`: the loss over all pairs of all ranks' batches."""

from fastccsa.losses.distributed import *  # noqa: F403
from fastccsa.losses.distributed import __all__ as __all__
