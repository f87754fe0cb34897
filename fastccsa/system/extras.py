"""Packages that only some commands need."""

from __future__ import annotations

import importlib

from fastccsa.system.errors import InputError


def require(extra: str, *modules: str) -> None:
    """Make sure that the ``modules`` of an optional extra can be imported.

    Raises:
        InputError: one cannot; the message has the pip command.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(f"{module} is not usable ({error}): pip install 'fastccsa[{extra}]'") from error
