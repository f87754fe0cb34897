"""Channel pruning: `prune` makes a smaller network of a trained run."""

from __future__ import annotations

from typing import Any

from fastccsa.pruning.config import CRITERIA, PruneConfig

__all__ = ["CRITERIA", "PruneConfig", "prune"]


def __getattr__(name: str) -> Any:
    # The rest brings in training; the command line's --help needs the configuration alone.
    if name == "prune":
        from fastccsa.pruning.procedure import prune

        return prune
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
