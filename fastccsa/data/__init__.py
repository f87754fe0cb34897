"""Which image is where, what it shows, and which split it is in."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastccsa.data.labels import LabelMaps
from fastccsa.data.manifest import Manifest
from fastccsa.data.prepare import prepare
from fastccsa.data.splits import nested_subset, split
from fastccsa.data.taxonomy import CLASSES

if TYPE_CHECKING:
    from fastccsa.data.rendering import render_collections
    from fastccsa.pipeline import ImageLoader, PairLoader, Transforms

__all__ = [
    "CLASSES",
    "ImageLoader",
    "LabelMaps",
    "Manifest",
    "PairLoader",
    "Transforms",
    "nested_subset",
    "prepare",
    "render_collections",
    "split",
]

# Imported on first use. The pipeline imports this package, so importing it here would be a circle (and
# would load DALI to read a table); the renderer is needed by the demo alone.
_LAZY = {
    "ImageLoader": "fastccsa.pipeline",
    "PairLoader": "fastccsa.pipeline",
    "Transforms": "fastccsa.pipeline",
    "render_collections": "fastccsa.data.rendering",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
