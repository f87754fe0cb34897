"""The values of the options of `prepare` that are chosen by name."""

from __future__ import annotations

from typing import Literal

# How duplicates are looked for: not at all, by the bytes of the files, or also by what they show.
DuplicateSearch = Literal["off", "exact", "near"]
