"""From image files to batches: the public names of `fastccsa.collections` and `fastccsa.images`."""

from fastccsa.collections import CLASSES, LabelMaps, Manifest, nested_subset, prepare, render_collections, split
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
