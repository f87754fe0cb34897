"""The options of the loss that are chosen by name: the only place that lists their values.

Signatures use the types; checks, the command line and configurations get the values from them with `typing.get_args`.
Only `typing` is imported, so that the command line can show the values without loading torch.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Pairs", "Precision", "Reduction"]

# Which rows form pairs: row i with row i, or every row of the first stream with every row of the second.
Pairs = Literal["zipped", "all"]

# How the values of a batch become the result. Their positions are the codes that the op takes.
Reduction = Literal["none", "mean", "sum", "weighted_mean"]

# How CUDA multiplies float32 features: as accurately as in float32, by three products of bfloat16 parts, or by one
# product in TF32.
Precision = Literal["ieee", "bf16x3", "tf32"]
