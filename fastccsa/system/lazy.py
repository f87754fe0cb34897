"""Import of a package's public names when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from fastccsa.system.extras import install_advice


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the ``__getattr__`` of a package whose public names live in modules that are slow to import.

    If a module needs a package that is not installed, the error names the extra that installs it.

    Args:
        package: ``__name__`` of the package.
        homes: full name of the module that defines each public name.

    Returns:
        The function. It raises AttributeError for any other name.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with install_advice():
            return getattr(importlib.import_module(homes[name]), name)

    return get
