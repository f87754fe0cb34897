"""From image files to batches on the training device: transforms, backends and loaders."""

from fastccsa.images.loaders import ImageLoader, PairLoader
from fastccsa.images.transforms import Transforms, Views

__all__ = ["ImageLoader", "PairLoader", "Transforms", "Views"]
