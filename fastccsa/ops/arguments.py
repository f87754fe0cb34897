"""Checks of the ops' arguments that the kernels cannot make: transforms, meta tensors, and which weight is bad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastccsa.system.errors import InputError

__all__ = ["bad_weight", "check_devices", "check_meta", "check_transforms", "name_bad_weight", "no_forward_derivative"]

_FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_PLAIN = (Tensor, torch.nn.Parameter)
_USE_REFERENCE = "use the same function of fastccsa.reference there"


def check_transforms() -> None:
    """Check that no transform of torch.func sees the call; functionalization, which tracers use, is no obstacle.

    Raises:
        RuntimeError: vmap, grad, jvp or another one is active.
    """
    if not torch._C._are_functorch_transforms_active():
        return
    transforms = {level.key().name for level in torch._C._functorch.get_interpreter_stack()} - {"Functionalize"}
    if transforms:
        raise RuntimeError(
            "fastccsa's fused loss does not support torch.func's transforms (vmap, grad, jvp, jacrev and others); "
            + _USE_REFERENCE
        )


def no_forward_derivative(ctx: Any, *grad_inputs: Any) -> Any:
    """Serve as the ``jvp`` of an autograd.Function that has none.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError(f"fastccsa's fused loss has no derivative in forward mode; {_USE_REFERENCE}")


def bad_weight(name: str, weight: Tensor) -> InputError | None:
    """Return the error for the first weight that is negative or not finite, or None."""
    bad = ~((weight >= 0) & weight.isfinite())
    if not bool(bad.any()):
        return None
    index = bad.nonzero()[0].tolist()
    return InputError(
        f"{name} holds a negative or non-finite value: {name}{index} is {weight[tuple(index)].item()}; "
        "weights must be 0 or more, and finite"
    )


def name_bad_weight(error: RuntimeError, weights: Mapping[str, Tensor | None]) -> None:
    """Raise the error of `bad_weight` if a kernel raised `error` for one of these weights; do nothing otherwise.

    An error that concerns an earlier call on a GPU stays as it is: the weights of that call are not known here.
    """
    message = str(error)
    if "weights must be 0 or more" not in message or "in an earlier call" in message:
        return
    for name, weight in weights.items():
        known = bad_weight(name, weight) if weight is not None and message.startswith(name) else None
        if known is not None:
            raise known from None


def check_devices(arguments: Sequence[tuple[str, Tensor | None]]) -> None:
    """Check that all tensors are on one device, where no kernel does: the dispatcher prefers meta over any other.

    Raises:
        RuntimeError: they are not; the message names both devices.
    """
    first = next(x for _, x in arguments if x is not None)
    for name, x in arguments:
        if x is not None and x.device != first.device:
            raise RuntimeError(f"{name} is on {x.device}, but the other tensors are on {first.device}; move it there")


def check_meta(name: str, x: Tensor | None, dtype: torch.dtype | None, *sizes: int) -> None:
    """Check a meta tensor as the kernels check theirs; skip tensors of a tracer, whose sizes may be symbols.

    Args:
        name: its name in the message.
        x: the tensor, or None, which is not checked.
        dtype: the expected dtype; None stands for any that the ops support.
        sizes: the expected shape; -1 stands for any number.

    Raises:
        RuntimeError: another dtype or shape.
    """
    if x is None or type(x) not in _PLAIN:
        return
    if x.dtype not in (_FLOATING if dtype is None else (dtype,)):
        expected = "float64, float32, bfloat16 or float16" if dtype is None else str(dtype).removeprefix("torch.")
        raise RuntimeError(f"{name} must be {expected}, but it is {str(x.dtype).removeprefix('torch.')}")
    if x.dim() != len(sizes):
        many = "dimensions" if len(sizes) > 1 else "dimension"
        raise RuntimeError(f"{name} must have {len(sizes)} {many}, but its shape is {list(x.shape)}")
    for d, size in enumerate(sizes):
        if size not in (-1, x.shape[d]):
            raise RuntimeError(f"{name} has shape {list(x.shape)}, but dimension {d} must be {size}")
