"""The options of the image pipeline that are chosen by name, with their values; imports only `typing`."""

from __future__ import annotations

from typing import Literal

# What decodes and transforms images; see `fastccsa.images.PairLoader`.
ImageBackend = Literal["auto", "native", "dali", "torchvision"]

# Whether an image is resampled once, or twice, exactly as in the paper.
Mode = Literal["fused", "exact"]

# Where a loader gets the cached crops of the images from.
CropCache = Literal["disk", "ram", "gpu", "sharded"]

# Where a run gets them from; with "none" every image is decoded each time, and "auto" chooses.
Cache = Literal["auto", "none", CropCache]

# What a run does when an image cannot be read: show another one in its place, or stop.
BrokenImages = Literal["replace", "stop"]

# What a loader does when an image cannot be read: show another one in its place, or raise `InputError`.
OnError = Literal["replace", "raise"]
