"""From image files to batches on the training device: transforms, backends and loaders."""

from fastccsa.pipeline.loader import ImageLoader, PairLoader
from fastccsa.pipeline.transforms import Transforms, Views

__all__ = ["ImageLoader", "PairLoader", "Transforms", "Views"]
