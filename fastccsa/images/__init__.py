"""The image pipeline, from image files to batches on the training device: transforms, backends and loaders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa.images.loaders import ImageLoader, PairLoader
    from fastccsa.images.transforms import Transforms, Views

__all__ = ["ImageLoader", "PairLoader", "Transforms", "Views"]

# The --help of the command line imports `fastccsa.images.choices`, and must not load torch.
__getattr__ = lazy_names(
    __name__,
    {
        "ImageLoader": "fastccsa.images.loaders",
        "PairLoader": "fastccsa.images.loaders",
        "Transforms": "fastccsa.images.transforms",
        "Views": "fastccsa.images.transforms",
    },
)
