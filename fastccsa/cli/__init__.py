"""The command line. One file a command; the work itself is done by the packages above this one."""

from __future__ import annotations

from fastccsa.cli.main import main

__all__ = ["main"]
