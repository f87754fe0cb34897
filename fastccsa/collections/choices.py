"""The values of the options about images and splits that are chosen by name; imports nothing but `typing`."""

from __future__ import annotations

from typing import Literal

# What the images of a manifest are for.
Split = Literal["train", "validation", "test"]

# How duplicates are looked for: not at all, by the bytes of the files, or also by what they show.
DuplicateSearch = Literal["off", "exact", "near"]
