"""The values of the options that configurations, the command line and the loaders share."""

from __future__ import annotations

from typing import Literal

# What decodes and transforms images; see `fastccsa.images.PairLoader`.
ImageBackend = Literal["auto", "native", "dali", "torchvision"]

# Whether an image is resampled once, or twice as literally in the paper.
Mode = Literal["fused", "exact"]

# Where the cached crops of the images are used from.
CropCache = Literal["disk", "ram", "gpu"]

# The same for a run; with "none" every image is decoded each time.
Cache = Literal["none", CropCache]

# What happens when an image cannot be read: another one takes its place, or the run stops.
BrokenImages = Literal["replace", "stop"]

# The same for a loader, which raises `InputError`.
OnError = Literal["replace", "raise"]
