"""Checks and conversions of the options and inputs of the losses.

The ops check labels, weights and the remaining shapes, because they read them anyway.
"""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from fastccsa.ops.arguments import bad_weight
from fastccsa.ops.choices import Pairs, Precision, Reduction
from fastccsa.ops.library import as_weight
from fastccsa.system.choices import check_choice
from fastccsa.system.errors import InputError

__all__ = [
    "as_labels",
    "check_logits",
    "check_memory_batch",
    "check_memory_size",
    "check_options",
    "checked_margin_and_alpha",
    "checked_weight",
    "in_one_dtype",
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


def checked_margin_and_alpha(margin: Any, alpha: Any) -> tuple[float, float]:
    """Return the margin, which is a distance, and alpha, which is a share, as floats.

    Args:
        margin: a number, or a tensor or an array of one number.
        alpha: likewise.

    Raises:
        InputError: a margin below 0 or infinite, or alpha outside [0, 1]; NaN is neither; not a number; or a tensor
            that requires a gradient.
    """
    if type(margin) is not float:
        margin = _number("margin", margin)
    if type(alpha) is not float:
        alpha = _number("alpha", alpha)
    # Not a global: torch.compile makes symbols of floats outside of the function, and specialises twice.
    if not 0 <= margin < float("inf"):
        raise InputError(f"margin is {margin}; it is a distance, so it must be 0 or more, and finite")
    if not 0 <= alpha <= 1:
        raise InputError(f"alpha is {alpha}; it is a share, so it must be in [0, 1]")
    return margin, alpha


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tensor) and value.requires_grad and torch.is_grad_enabled():
        raise InputError(
            f"{name} requires a gradient, which fastccsa's fused loss does not compute; use the same function of "
            f"fastccsa.reference to learn it, or pass {name}.item()"
        )
    if not isinstance(value, (str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError, RuntimeError):
            pass  # the message below says it better
    raise InputError(f"{name} is {value!r}; it must be one number")


def in_one_dtype(logits1: Tensor, logits2: Tensor, features1: Tensor, features2: Tensor) -> tuple[Tensor, ...]:
    """Promote logits and features to the wider of their dtypes; two different half precisions become float32.

    Streams that differ in dtype stay as they are: the op names the one that differs.
    """
    logits, features = logits1.dtype, features1.dtype
    inputs = (logits1, logits2, features1, features2)
    if (logits, features) != (logits2.dtype, features2.dtype) or not (
        isinstance(logits, torch.dtype) and logits.is_floating_point and features.is_floating_point
    ):
        return inputs
    widest = torch.promote_types(logits, features)
    return tuple(x.to(widest) for x in inputs)


def as_labels(name: str, target: Tensor) -> Tensor:
    """Return labels of int64 or uint8, the dtypes that ``torch.nn.functional.cross_entropy`` takes, as int64.

    Raises:
        RuntimeError: not a tensor, or of another dtype; torch raises the same type.
    """
    dtype = getattr(target, "dtype", None)
    if dtype is torch.int64:
        return target
    if dtype is torch.uint8:
        return target.long()
    if not isinstance(target, Tensor):
        raise RuntimeError(f"{name} must be a tensor, but it is {type(target).__name__}; pass torch.as_tensor({name})")
    given = str(dtype).removeprefix("torch.")
    raise RuntimeError(f"{name} must be int64, but it is {given}; pass {name}.long()")


def checked_weight(name: str, weight: Any, dim: int) -> Tensor | None:
    """Return a detached copy of a weight, in float32 or float64, that can serve as a buffer of a module.

    Args:
        name: its name in the message.
        weight: [C] or [C, C], a tensor, a list or an array; or None.
        dim: number of dimensions, 1 or 2.

    Raises:
        InputError: another shape, or a value that is negative or not finite.
    """
    if weight is None:
        return None
    if not isinstance(weight, Tensor):
        weight = as_weight(name, weight).to(torch.float64 if _is_double(weight) else torch.float32)
    if weight.is_complex():
        raise InputError(f"{name} is {weight.dtype}; weights are real: pass {name}.real")
    weight = weight.detach().to(torch.promote_types(weight.dtype, torch.float32), copy=True)
    if weight.dim() != dim or (dim == 2 and weight.shape[0] != weight.shape[1]):
        expected = "[C]" if dim == 1 else "[C, C]"
        raise InputError(f"{name} must have shape {expected}, but its shape is {list(weight.shape)}")
    error = None if weight.is_meta else bad_weight(name, weight)
    if error is not None:
        raise error
    return weight


def _is_double(values: Any) -> bool:
    """Return whether values are an array of float64, whose precision is kept; lists become float32, as in torch."""
    return str(getattr(values, "dtype", "")) == "float64"


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
    """Check a batch that a memory is to store: floating features [B, width], int64 or uint8 labels [B] and domains [B].

    Raises:
        InputError: a shape or dtype differs.
    """
    if features.dim() != 2 or features.shape[1] != width or not features.is_floating_point():
        raise InputError(
            f"features must be floating [B, {width}], but they are {features.dtype} {list(features.shape)}"
        )
    for name, values in (("labels", labels), ("domains", domains)):
        if values.shape != features.shape[:1] or values.dtype not in (torch.int64, torch.uint8):
            expected = f"int64 [{len(features)}], one value per row of features"
            raise InputError(f"{name} must be {expected}, but they are {values.dtype} {list(values.shape)}")
