"""The op that computes the loss over all pairs: its fake kernel, gradient and autocast rule.

``csrc/all_pairs/`` computes the loss and its gradients in one call, so the backward pass only scales them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastccsa.ops.allocator import large_empty
from fastccsa.ops.arguments import (
    check_devices,
    check_meta,
    check_transforms,
    name_bad_weight,
    no_forward_derivative,
)
from fastccsa.ops.library import accumulation_dtype
from fastccsa.ops.profiling import named

__all__ = ["all_pairs", "all_pairs_with_gradients"]

# Fewer numbers take less than 8 MiB in every dtype, and smaller results are never kept; see `set_cpu_cache_limit`.
_FEW_NUMBERS = 1 << 20
_PLAIN = (Tensor, torch.nn.Parameter)
_NAMES = ("features1", "features2", "target1", "target2", "pair_weight")
_op = torch.ops.fastccsa.all_pairs.default


# ---- the op's fake kernel and gradient ----


@torch.library.register_fake("fastccsa::all_pairs")
def _fake(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    weight: Tensor | None,
    *,
    labels: int,
    output_mask: int,
    per_term: bool,
    **_: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = accumulation_dtype(z1.dtype)
    check_devices(list(zip(_NAMES, (z1, z2, y1, y2, weight), strict=True)))
    if z1.is_meta:
        check_meta(_NAMES[0], z1, None, -1, -1)
        check_meta(_NAMES[1], z2, z1.dtype, -1, z1.shape[-1])
        for name, y, z in zip(_NAMES[2:4], (y1, y2), (z1, z2), strict=True):
            check_meta(name, y, torch.int64, z.shape[0])
        classes = labels or (-1 if weight is None else weight.shape[0])
        check_meta(_NAMES[4], weight, dtype, classes, classes)
    planes = [(2 if per_term else 1) if output_mask >> side & 1 else 0 for side in range(2)]
    gradients = (z.new_empty((count, *z.shape), dtype=dtype) for count, z in zip(planes, (z1, z2), strict=True))
    return z1.new_empty((), dtype=dtype), z1.new_empty((2,), dtype=dtype), *gradients  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Any) -> None:
    ctx.save_for_backward(*output[2:])
    ctx.dtype = inputs[0].dtype
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2 if keyword_only_inputs["per_term"] else 1 :])


def _backward(ctx: Any, grad_loss: Tensor | None, grad_terms: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "fastccsa's loss over all pairs has no second derivative; "
            "use the same function of fastccsa.reference where create_graph=True is needed"
        )
    if grad_loss is None and grad_terms is None:
        return (None,) * 5
    gradients = (
        _scaled(unit, grad_loss, grad_terms).to(ctx.dtype) if needed else None
        for unit, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[:2], strict=True)
    )
    return *gradients, None, None, None


def _scaled(unit: Tensor, grad_loss: Tensor | None, grad_terms: Tensor | None) -> Tensor:
    """Compute the gradient of one side from its planes: one plane for the loss, or one for each term."""
    if unit.shape[0] == 1:
        assert grad_loss is not None  # the terms have no gradient then
        few = type(unit) is Tensor and unit.numel() < _FEW_NUMBERS  # a tensor subclass is traced: always take `out`
        out = None if few else large_empty(unit, *unit.shape[1:])
        return torch.mul(unit[0], grad_loss, out=out)
    upstream = torch.stack([g.expand(2) for g in (grad_loss, grad_terms) if g is not None]).sum(0)
    return upstream[0] * unit[0] + upstream[1] * unit[1]


_backward = named("all_pairs backward", _backward)
torch.library.register_autograd("fastccsa::all_pairs", _backward, setup_context=_setup_context)


# ---- eager calls ----


def _below_autograd(*tensors: Tensor | None, **options: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        return _op(*tensors, **options)  # type: ignore[no-any-return]


_forward = named("all_pairs forward", _below_autograd)


class _Eager(torch.autograd.Function):
    """Applies the registered gradient without torch's Python wrappers, which take longer than the op for few pairs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        *tensors, options = inputs
        output = _forward(*tensors, **options)
        _setup_context(ctx, inputs, options, output)
        return output

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> tuple[Any, ...]:
        return *_backward(ctx, *upstream), None

    jvp = staticmethod(no_forward_derivative)


def _is_eager(*tensors: Tensor) -> bool:
    """Return whether the tensors hold numbers, and no tracer or functorch transform sees the call."""
    return (
        all(type(x) in _PLAIN for x in tensors)
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


# ---- entry points of the losses ----


def all_pairs(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    weight: Tensor | None,
    *,
    margin: float,
    reduction: str,
    per_term: bool,
    precision: str,
    labels: int = 0,
) -> tuple[Tensor, Tensor]:
    """Compute alignment plus separation of every row of ``z1`` with every row of ``z2``.

    Args:
        z1: [N1, D] features: float64, float32, bfloat16 or float16. Under autocast the sides may differ in dtype.
        z2: [N2, D] features.
        y1: [N1] int64 labels.
        y2: [N2] int64 labels.
        weight: [C, C] weights of pairs of classes, in the dtype of sums, see `accumulation_dtype`; or None for 1.
        margin: distance beyond which pairs of different classes no longer matter.
        reduction: ``"sum"``; any other is the mean over the pairs.
        per_term: whether the terms can be differentiated. Without it only the loss can be, and the gradients take half
            the memory.
        precision: one of `fastccsa.ops.choices.Precision`, for float32 features on CUDA.
        labels: the number of classes, which labels must be below; 0 if only ``weight`` bounds them.

    Returns:
        The loss, a scalar, and alignment and separation, [2], in the dtype of sums.

    Raises:
        InputError: a bad weight.
        RuntimeError: shapes, dtypes or devices that disagree, a bad label; on CUDA, a bad label or weight of an earlier
            call; a transform of torch.func. The message names the argument.
    """
    if not torch.compiler.is_compiling():
        check_transforms()
    if z1.dtype != z2.dtype and not z1.is_meta and torch.is_autocast_enabled(z1.device.type):
        widest = torch.promote_types(z1.dtype, z2.dtype)
        widest = widest if widest == torch.float64 else torch.float32
        z1, z2 = z1.to(widest), z2.to(widest)
        weight = None if weight is None else weight.to(widest)
    output_mask = (z1.requires_grad | z2.requires_grad << 1) if torch.is_grad_enabled() else 0
    options = {
        "labels": labels,
        "margin": margin,
        "mean": reduction != "sum",
        "output_mask": output_mask,
        "per_term": per_term,
        "precision": precision,
    }
    if _is_eager(z1, z2):
        try:
            loss, terms, _, _ = _Eager.apply(z1, z2, y1, y2, weight, options)
        except RuntimeError as error:
            name_bad_weight(error, {"pair_weight": weight})
            raise
    else:
        loss, terms, _, _ = _op(z1, z2, y1, y2, weight, **options)
    return loss, terms


def all_pairs_with_gradients(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    weight: Tensor | None,
    *,
    margin: float,
    mean: bool,
    output_mask: int,
    per_term: bool,
    precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the loss, its terms and its gradients, as values that cannot be differentiated.

    Args and errors: as for `all_pairs`. ``mean`` divides by the number of pairs. Bit k of ``output_mask`` requests the
    gradient of side k.

    Returns:
        The loss []; alignment and separation [2]; and the gradient of each side in the dtype of sums: [1, N, D] of the
        loss, or [2, N, D] of the two terms if ``per_term``; [0, N, D] if it is not requested.
    """
    return _forward(
        z1, z2, y1, y2, weight,
        labels=0, margin=margin, mean=mean, output_mask=output_mask, per_term=per_term, precision=precision,
    )  # fmt: skip
