"""The loss over all pairs of all ranks' batches: the public name of `fastccsa.losses.distributed`."""

from fastccsa.losses.distributed import *  # noqa: F403
from fastccsa.losses.distributed import __all__ as __all__
from fastccsa.losses.distributed import __doc__ as __doc__
