"""The command line: one file per command. The other packages do the work."""

from __future__ import annotations

from fastccsa.cli.main import main

__all__ = ["main"]
