"""The options of manifests and of `prepare` that are chosen by name, with their values; imports only `typing`."""

from __future__ import annotations

from typing import Literal

# What the images of a manifest are for.
Split = Literal["train", "validation", "test"]

# How duplicates are searched for: not at all, by the bytes of the files, or also by how the images look.
DuplicateSearch = Literal["off", "exact", "near"]
