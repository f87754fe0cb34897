"""Image collections: where each image is, what it shows, and which split it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.collections.labels import LabelMaps
    from fastccsa.collections.manifest import Manifest
    from fastccsa.collections.preparation import prepare
    from fastccsa.collections.rendering import render_collections
    from fastccsa.collections.splits import nested_subset, split
    from fastccsa.collections.taxonomy import CLASSES

__all__ = ["CLASSES", "LabelMaps", "Manifest", "nested_subset", "prepare", "render_collections", "split"]

# The --help of the command line imports `fastccsa.collections.taxonomy`, and must work without pandas.
__getattr__ = lazy_names(
    __name__,
    {
        "CLASSES": "fastccsa.collections.taxonomy",
        "LabelMaps": "fastccsa.collections.labels",
        "Manifest": "fastccsa.collections.manifest",
        "nested_subset": "fastccsa.collections.splits",
        "prepare": "fastccsa.collections.preparation",
        "render_collections": "fastccsa.collections.rendering",
        "split": "fastccsa.collections.splits",
    },
)


def __dir__() -> list[str]:
    return __all__
