"""The command line: one file per command; the work is done by the packages above this one."""

from __future__ import annotations

from fastccsa.cli.main import main

__all__ = ["main"]
