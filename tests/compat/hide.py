"""Hides all packages but the core's requirements, so that a full environment behaves like a bare one.

Import it before anything else: afterwards only the standard library, fastccsa, and `CORE` with what these packages
require can be imported.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from types import ModuleType

CORE = ("torch", "numpy", "click")


def normalised(name: str) -> str:
    """Return a distribution's name in the form in which the package index compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def with_requirements(distributions: Sequence[str]) -> set[str]:
    """Return the distributions and everything they require, directly or indirectly; without extras."""
    found: set[str] = set()
    waiting = [normalised(name) for name in distributions]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            requirements = requires(name) or []
        except PackageNotFoundError:  # for another system
            continue
        waiting += [
            normalised(re.split(r"[^\w.-]", requirement, maxsplit=1)[0])
            for requirement in requirements
            if "extra ==" not in requirement
        ]
    return found


CORE_DISTRIBUTIONS = with_requirements(CORE)
HIDDEN = {
    module
    for module, distributions in packages_distributions().items()
    if module != "fastccsa" and not CORE_DISTRIBUTIONS & {normalised(name) for name in distributions}
} | {"nvidia.dali"}  # in a folder that it shares with what torch requires


class OnlyTheCore(PathFinder):
    """The usual search for modules, which does not find the hidden ones."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None for a hidden module, as if it were not installed."""
        hidden = any(fullname == module or fullname.startswith(f"{module}.") for module in HIDDEN)
        return None if hidden else super().find_spec(fullname, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = OnlyTheCore
