"""The values of the options of `fastccsa export`, which its command line needs without importing torch."""

from __future__ import annotations

from typing import Literal

# Which steps between a decoded photograph and the network are part of the exported model: none of them, the
# normalisation, or all: resizing, cropping and normalisation.
Preprocess = Literal["none", "normalise", "all"]
