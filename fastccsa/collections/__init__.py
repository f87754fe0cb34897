"""Image collections: where each image is, what it shows, and which split it belongs to."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastccsa.collections.labels import LabelMaps
from fastccsa.collections.manifest import Manifest
from fastccsa.collections.prepare import prepare
from fastccsa.collections.splits import nested_subset, split
from fastccsa.collections.taxonomy import CLASSES

if TYPE_CHECKING:
    from fastccsa.collections.rendering import render_collections

__all__ = ["CLASSES", "LabelMaps", "Manifest", "nested_subset", "prepare", "render_collections", "split"]


def __getattr__(name: str) -> Any:
    # Imported on first use, because only the demo renders images.
    if name == "render_collections":
        return importlib.import_module("fastccsa.collections.rendering").render_collections
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
