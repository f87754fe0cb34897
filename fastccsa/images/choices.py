"""The values of the options that configurations, the command line and the loaders share."""

from __future__ import annotations

from typing import Literal

# What decodes and transforms images; see `fastccsa.images.PairLoader`.
ImageBackend = Literal["auto", "native", "dali", "torchvision"]

# Where the cached crops of the images are used from; with "none" every image is decoded each time.
Cache = Literal["none", "disk", "ram", "gpu"]

# What happens when an image cannot be read: another one takes its place, or the run stops.
BrokenImages = Literal["replace", "stop"]
