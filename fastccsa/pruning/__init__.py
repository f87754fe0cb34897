"""Channel pruning: `prune` makes a smaller network from a trained run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.pruning.config import CRITERIA, PruneConfig
from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.pruning.procedure import prune

__all__ = ["CRITERIA", "PruneConfig", "prune"]

# `prune` loads the training loop; the command line's --help needs only the configuration.
__getattr__ = lazy_names(__name__, {"prune": "fastccsa.pruning.procedure"})
