"""How large an element is, for counting what a benchmark's cell has to move."""

from __future__ import annotations

FEATURE_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}  # by the name of the dtype
LABEL_BYTES = 8  # int64
