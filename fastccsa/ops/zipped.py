"""The op that computes the loss over zipped pairs, row i with row i: its fake kernels, gradient and autocast rule."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from fastccsa.ops.arguments import (
    check_devices,
    check_meta,
    check_transforms,
    name_bad_weight,
    no_forward_derivative,
)
from fastccsa.ops.choices import Reduction
from fastccsa.ops.library import accumulation_dtype
from fastccsa.ops.profiling import named
from fastccsa.system.errors import InputError

__all__ = ["REDUCTIONS", "zipped_ccsa"]

TERMS = 4
_WEIGHTS = ("class_weight1", "class_weight2", "pair_weight")
_NAMES = ("logits1", "logits2", "features1", "features2", "target1", "target2", *_WEIGHTS)
_NO_GRADIENTS = (None,) * 8  # of targets, weights and scalars
# From this number of pairs on, CUDA's forward pass leaves the gradients of the features for the backward pass, which
# then need not read the features again: two thirds of the bytes in total. Below, calls are bound by the host.
LEAVE_GRADIENTS_FROM = 8192
REDUCTIONS = {name: code for code, name in enumerate(get_args(Reduction))}

_zipped = torch.ops.fastccsa.zipped_ccsa.default
_forward = named("zipped_ccsa forward", torch.ops.fastccsa.zipped_ccsa_forward.default)
_backward = named("zipped_ccsa backward", torch.ops.fastccsa.zipped_ccsa_backward.default)
_forward_and_gradients = named(
    "zipped_ccsa forward and gradients", torch.ops.fastccsa.zipped_ccsa_forward_and_gradients.default
)
_finish = named("zipped_ccsa finish", torch.ops.fastccsa.zipped_ccsa_finish.default)

_ROWS, _WEIGHT_SUMS, _SUMS, _MAX_PARTIALS = torch.ops.fastccsa.zipped_saved_layout()


@torch.library.register_fake("fastccsa::zipped_ccsa")
@torch.library.register_fake("fastccsa::zipped_ccsa_forward")
def _zipped_fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    first, reduction = _first(args), args[-1]
    check_devices(list(zip(_NAMES, args, strict=False)))
    _check_meta(first, *args[:9])
    pairs, dtype = first.shape[0], accumulation_dtype(first.dtype)
    each = reduction == REDUCTIONS["none"]
    loss = first.new_empty((pairs,) if each else (), dtype=dtype)
    terms = first.new_empty((TERMS, pairs) if each else (TERMS,), dtype=dtype)
    saved_size = _ROWS * pairs + _WEIGHT_SUMS + _SUMS * torch.sym_min(pairs, _MAX_PARTIALS)
    return loss, terms, first.new_empty((saved_size,), dtype=dtype)


@torch.library.register_fake("fastccsa::zipped_ccsa_backward")
def _zipped_backward_fake(grad_loss: Any, grad_terms: Any, saved: Tensor, *args: Any) -> tuple[Tensor, ...]:
    output_mask = args[-1]
    return tuple(
        of.new_empty(of.shape)
        if of is not None and output_mask >> bit & 1
        else saved.new_empty((0,), dtype=_first(args).dtype)
        for bit, of in enumerate(args[:4])
    )


@torch.library.register_fake("fastccsa::zipped_ccsa_forward_and_gradients")
def _forward_and_gradients_fake(*args: Any) -> tuple[Tensor, ...]:
    *inputs, features_mask = args
    left = (
        of.new_empty(of.shape) if features_mask >> bit & 1 else of.new_empty((0,)) for bit, of in enumerate(inputs[2:4])
    )
    return *_zipped_fake(*inputs), *left


@torch.library.register_fake("fastccsa::zipped_ccsa_finish")
def _finish_fake(gradient1: Any, gradient2: Any, grad_loss: Tensor, saved: Tensor, *args: Any) -> tuple[Tensor, ...]:
    *inputs, output_mask = args
    return _zipped_backward_fake(grad_loss, None, saved, *inputs, output_mask & 3)[:2]


def _check_meta(first: Tensor, *tensors: Tensor | None) -> None:
    if not first.is_meta:
        return
    logits1, logits2, features1, *_, pair_weight = tensors
    check_meta(_NAMES[0] if logits1 is not None else _NAMES[2], first, None, -1, -1)
    rows, dtype, sums = first.shape[0], first.dtype, accumulation_dtype(first.dtype)
    logits = logits1 if logits1 is not None else logits2
    classes = logits.shape[-1] if logits is not None else pair_weight.shape[0] if pair_weight is not None else -1
    width = features1.shape[-1] if features1 is not None else -1
    shapes = 2 * [(dtype, rows, classes)] + 2 * [(dtype, rows, width)] + 2 * [(torch.int64, rows)]
    shapes += [(sums, classes), (sums, classes), (sums, classes, classes)]
    for name, x, (expected, *sizes) in zip(_NAMES, tensors, shapes, strict=True):
        check_meta(name, x, expected, *sizes)


def _first(args: tuple[Any, ...]) -> Tensor:
    """Return ``logits1``, or ``features1`` if there are no logits."""
    return args[0] if args[0] is not None else args[2]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[2], *inputs[:9])
    ctx.scalars = inputs[9:]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[2])


def _backward_of(ctx: Any, grad_loss: Tensor | None, grad_terms: Tensor | None, _: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "fastccsa's fused loss has no second derivative; "
            "use the same function of fastccsa.reference where create_graph=True is needed"
        )
    needs = ctx.needs_input_grad
    output_mask = needs[0] | needs[1] << 1 | needs[2] << 2 | needs[3] << 3
    if output_mask == 0 or (grad_loss is None and grad_terms is None):
        return None, None, None, None, *_NO_GRADIENTS
    gradients = _backward(grad_loss, grad_terms, *ctx.saved_tensors, *ctx.scalars, output_mask)
    if output_mask != 15:
        gradients = tuple(g if needs[k] else None for k, g in enumerate(gradients))
    return *gradients, *_NO_GRADIENTS


torch.library.register_autograd("fastccsa::zipped_ccsa", _backward_of, setup_context=_setup_context)


class _Zipped(torch.autograd.Function):
    """Applies the registered gradient without torch's Python wrappers, which take half of a small batch's time."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output = _forward(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_backward_of)
    jvp = staticmethod(no_forward_derivative)


class _ZippedLeavingGradients(_Zipped):
    """Computes the gradients of the features in the forward pass, for an upstream gradient of 1."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        needs = ctx.needs_input_grad
        loss, terms, saved, *left = _forward_and_gradients(*inputs, needs[2] | needs[3] << 1)
        ctx.left = left
        _setup_context(ctx, inputs, (loss, terms, saved))
        return loss, terms, saved

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, grad_terms: Tensor | None, _: Any) -> tuple[Any, ...]:
        # They are given away, and their new owners may change them: a second pass through the graph computes its own.
        left, ctx.left = ctx.left, None
        if left is None or grad_loss is None or grad_terms is not None or torch.is_grad_enabled():
            return _backward_of(ctx, grad_loss, grad_terms, _)
        needs = ctx.needs_input_grad
        of_features = [g if needs[2 + k] else None for k, g in enumerate(left)]
        saved, *inputs = ctx.saved_tensors
        of_logits = _finish(*of_features, grad_loss, saved, *inputs, *ctx.scalars, needs[0] | needs[1] << 1)
        return *(g if needs[k] else None for k, g in enumerate(of_logits)), *of_features, *_NO_GRADIENTS


def _leaves_gradients(inputs: tuple[Any, ...]) -> bool:
    """Return whether the forward pass of this call should compute the gradients of the features."""
    target1, features = inputs[4], inputs[2:4]
    return (
        target1.is_cuda
        and target1.shape[0] >= LEAVE_GRADIENTS_FROM
        and inputs[-1] != REDUCTIONS["none"]
        and torch.is_grad_enabled()
        and any(x is not None and x.requires_grad for x in features)
    )


def _promote(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Promote logits and features to the widest of their dtypes, which may differ under autocast, as torch does."""
    dtypes = {x.dtype for x in inputs[:4] if x is not None}
    if len(dtypes) <= 1:
        return inputs
    widest = torch.float64 if torch.float64 in dtypes else torch.float32
    promoted = (x if x is None else x.to(widest) for x in inputs[:4])
    weights = (w if w is None else w.to(widest) for w in inputs[6:9])
    return (*promoted, *inputs[4:6], *weights, *inputs[9:])


def _register_autocast(device: str) -> None:
    def autocast(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(device, enabled=False):
            return _zipped(*_promote(inputs))

    _library.impl("zipped_ccsa", autocast, f"Autocast{device.upper()}")


_library = torch.library.Library("fastccsa", "IMPL")
_register_autocast("cpu")
_register_autocast("cuda")


def zipped_ccsa(
    logits1: Tensor | None,
    logits2: Tensor | None,
    features1: Tensor | None,
    features2: Tensor | None,
    target1: Tensor,
    target2: Tensor | None,
    *,
    class_weight1: Tensor | None = None,
    class_weight2: Tensor | None = None,
    pair_weight: Tensor | None = None,
    margin: float,
    alpha: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """Compute the weighted CCSA loss over zipped pairs, or only some of its terms, with one fused kernel.

    Args:
        logits1: [N, C], floating, or None to omit the classification term of the first stream.
        logits2: [N, C], or None to omit the classification term of the second.
        features1: [N, D] in the dtype of the logits, or None to omit alignment and separation.
        features2: [N, D], or None.
        target1: [N] int64 labels.
        target2: [N] int64 labels; None if there are neither ``logits2`` nor features.
        class_weight1: [C] in the dtype of sums, see `accumulation_dtype`; or None for 1.
        class_weight2: [C], or None for 1.
        pair_weight: [C, C], or None for 1.
        margin: distance beyond which pairs of different classes no longer matter.
        alpha: share of alignment plus separation in the loss.
        reduction: one of ``REDUCTIONS``.

    Returns:
        The loss ([] or [N]) and its four terms ([4] or [4, N]), in the dtype of sums.

    Raises:
        InputError: an unknown reduction, a bad weight.
        RuntimeError: shapes, dtypes or devices that disagree; a bad label; on CUDA, a bad label or weight of an earlier
            call; a transform of torch.func.
    """
    code = REDUCTIONS.get(reduction)
    if code is None:
        raise InputError(f"reduction is {reduction!r}; choose one of {', '.join(map(repr, REDUCTIONS))}")
    inputs = (
        logits1, logits2, features1, features2, target1, target2,
        class_weight1, class_weight2, pair_weight, margin, alpha, code,
    )  # fmt: skip
    if torch.compiler.is_compiling():
        loss, terms, _ = _zipped(*inputs)
        return loss, terms
    check_transforms()
    try:
        if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(_first(inputs).device.type):
            inputs = _promote(inputs)  # as the op itself does where it is compiled
        function = _ZippedLeavingGradients if _leaves_gradients(inputs) else _Zipped
        loss, terms, _ = function.apply(*inputs)
    except RuntimeError as error:
        name_bad_weight(error, dict(zip(_WEIGHTS, inputs[6:9], strict=True)))
        raise
    return loss, terms
