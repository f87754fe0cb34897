"""Manifests, splits and loaders: the public names of `fastccsa.collections` and `fastccsa.images`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.collections import CLASSES, LabelMaps, Manifest, nested_subset, prepare, render_collections, split
    from fastccsa.images import ImageLoader, PairLoader, Transforms

_COLLECTIONS = ("CLASSES", "LabelMaps", "Manifest", "nested_subset", "prepare", "render_collections", "split")
_IMAGES = ("ImageLoader", "PairLoader", "Transforms")

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

__getattr__ = lazy_names(
    __name__, dict.fromkeys(_COLLECTIONS, "fastccsa.collections") | dict.fromkeys(_IMAGES, "fastccsa.images")
)


def __dir__() -> list[str]:
    return __all__
