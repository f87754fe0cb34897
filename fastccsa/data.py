"""Public facade of `fastccsa.collections` and `fastccsa.images`: everything between image files and batches."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastccsa.collections import CLASSES, LabelMaps, Manifest, nested_subset, prepare, split

if TYPE_CHECKING:
    from fastccsa.collections import render_collections
    from fastccsa.images import ImageLoader, PairLoader, Transforms

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

# Imported on first use, so that reading a manifest does not load torch.
_LAZY = {
    "ImageLoader": "fastccsa.images",
    "PairLoader": "fastccsa.images",
    "Transforms": "fastccsa.images",
    "render_collections": "fastccsa.collections",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
