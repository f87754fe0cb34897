"""Checks of the options and inputs of the losses.

The ops check labels, weights and the remaining shapes, because they read them anyway.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from fastccsa.ops.choices import Pairs, Precision, Reduction
from fastccsa.system.choices import check_choice
from fastccsa.system.errors import InputError

__all__ = [
    "check_logits",
    "check_margin_and_alpha",
    "check_memory_batch",
    "check_memory_size",
    "check_options",
    "checked_weight",
]

_PAIRS, _REDUCTIONS, _PRECISIONS = get_args(Pairs), get_args(Reduction), get_args(Precision)


def check_options(pairs: str, reduction: str, precision: str, *, classification: bool = True) -> None:
    """Check the options that are chosen by name, and that they can be combined.

    Args:
        pairs: see `Pairs`.
        reduction: see `Reduction`.
        precision: see `Precision`.
        classification: whether the loss has classification terms, to which ``"weighted_mean"`` applies.

    Raises:
        InputError: an unknown value, or values that cannot be combined; the message lists the alternatives.
    """
    if pairs not in _PAIRS:
        raise InputError(f"pairs is {pairs!r}; choose 'zipped' (row i with row i) or 'all' (every row with every row)")
    check_choice("reduction", reduction, _REDUCTIONS)
    if precision == "tf32x3":
        raise InputError("precision 'tf32x3' no longer exists; choose 'ieee', the default, which is as accurate")
    check_choice("precision", precision, _PRECISIONS)
    if pairs == "all":
        if reduction == "none":
            raise InputError(
                "reduction 'none' over all pairs would be a matrix of N1 x N2 values; choose 'mean' or 'sum', "
                "or fastccsa.reference.pair_terms(..., pairs='all') for few rows"
            )
    elif precision != "ieee":
        raise InputError(f"precision {precision!r} concerns the matrix products of pairs='all'; omit it with 'zipped'")
    if not classification and reduction == "weighted_mean":
        raise InputError("reduction 'weighted_mean' is for classification terms; choose 'mean', 'sum' or 'none' here")


def check_margin_and_alpha(margin: float, alpha: float) -> None:
    """Check that the margin is a distance and alpha a share.

    Raises:
        InputError: a margin below 0, or alpha outside [0, 1]; NaN is neither.
    """
    if not margin >= 0:
        raise InputError(f"margin is {margin}; it is a distance, so it must be 0 or more")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}; it is a share, so it must be in [0, 1]")


def checked_weight(name: str, weight: Tensor | None, dim: int) -> Tensor | None:
    """Return a detached copy of a weight, in a floating dtype, that can serve as a buffer of a module.

    Args:
        name: its name in the message.
        weight: [C] or [C, C], or None.
        dim: number of dimensions, 1 or 2.

    Raises:
        InputError: another shape, or a value that is negative or not finite.
    """
    if weight is None:
        return None
    weight = torch.as_tensor(weight).detach()
    weight = weight.clone() if weight.is_floating_point() else weight.to(torch.float32)
    if weight.dim() != dim or (dim == 2 and weight.shape[0] != weight.shape[1]):
        expected = "[C]" if dim == 1 else "[C, C]"
        raise InputError(f"{name} must have shape {expected}, but its shape is {list(weight.shape)}")
    if not bool(((weight >= 0) & weight.isfinite()).all()):
        raise InputError(f"{name} holds a negative or non-finite value; weights must be 0 or more")
    return weight


def check_logits(logits: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor]) -> None:
    """Check that each stream has as many rows of logits as of features; the two streams may differ in length.

    Raises:
        RuntimeError: a stream does not. The ops raise the same type for other shapes that disagree.
    """
    for k, (x, z) in enumerate(zip(logits, features, strict=True), 1):
        if z.dim() == 2 and x.shape[:1] != z.shape[:1]:
            raise RuntimeError(
                f"logits{k} has shape {list(x.shape)}, but dimension 0 must be {z.shape[0]} "
                f"(one row of logits per row of features{k})"
            )


def check_memory_size(capacity: int, width: int, dtype: torch.dtype) -> None:
    """Check the size and the dtype of a memory of features.

    Raises:
        InputError: a capacity or width below 1, or a dtype that is not floating.
    """
    for name, value in (("capacity", capacity), ("width", width)):
        if value < 1:
            raise InputError(f"{name} is {value}; a memory needs at least 1")
    if not dtype.is_floating_point:
        raise InputError(f"dtype is {dtype}; features are floating: choose float32, bfloat16, float16 or float64")


def check_memory_batch(features: Tensor, labels: Tensor, domains: Tensor, width: int) -> None:
    """Check a batch that a memory is to store: floating features [B, width], int64 labels [B] and domains [B].

    Raises:
        InputError: a shape or dtype differs.
    """
    if features.dim() != 2 or features.shape[1] != width or not features.is_floating_point():
        raise InputError(
            f"features must be floating [B, {width}], but they are {features.dtype} {list(features.shape)}"
        )
    for name, values in (("labels", labels), ("domains", domains)):
        if values.shape != features.shape[:1] or values.dtype != torch.int64:
            expected = f"int64 [{len(features)}], one value per row of features"
            raise InputError(f"{name} must be {expected}, but they are {values.dtype} {list(values.shape)}")
