"""The op of the loss over zipped pairs, row i with row i: its fake kernels, gradient and autocast rule."""

from __future__ import annotations

from typing import Any, get_args

import torch
from torch import Tensor

from fastccsa.ops.choices import Reduction
from fastccsa.ops.library import accumulation_dtype
from fastccsa.ops.profiling import named
from fastccsa.system.errors import InputError

__all__ = ["REDUCTIONS", "zipped_ccsa"]

TERMS = 4
_NO_GRADIENTS = (None,) * 8  # of targets, weights and scalars
_SUMS, _MAX_PARTIALS = 6, 1024  # csrc/zipped/params.h: saved_size
REDUCTIONS = {name: code for code, name in enumerate(get_args(Reduction))}

_zipped = torch.ops.fastccsa.zipped_ccsa.default
_forward = named("zipped_ccsa forward", torch.ops.fastccsa.zipped_ccsa_forward.default)
_backward = named("zipped_ccsa backward", torch.ops.fastccsa.zipped_ccsa_backward.default)


@torch.library.register_fake("fastccsa::zipped_ccsa")
@torch.library.register_fake("fastccsa::zipped_ccsa_forward")
def _zipped_fake(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
    logits1, features1, reduction = args[0], args[2], args[-1]
    first = logits1 if logits1 is not None else features1
    pairs, dtype = first.shape[0], accumulation_dtype(first.dtype)
    each = reduction == REDUCTIONS["none"]
    loss = first.new_empty((pairs,) if each else (), dtype=dtype)
    terms = first.new_empty((TERMS, pairs) if each else (TERMS,), dtype=dtype)
    saved = first.new_empty((5 * pairs + 2 + _SUMS * torch.sym_min(pairs, _MAX_PARTIALS),), dtype=dtype)
    return loss, terms, saved


@torch.library.register_fake("fastccsa::zipped_ccsa_backward")
def _zipped_backward_fake(grad_loss: Any, grad_terms: Any, saved: Tensor, *args: Any) -> tuple[Tensor, ...]:
    wanted = args[-1]
    return tuple(
        of.new_empty(of.shape)
        if of is not None and wanted >> bit & 1
        else saved.new_empty((0,), dtype=_first(args).dtype)
        for bit, of in enumerate(args[:4])
    )


def _first(args: tuple[Any, ...]) -> Tensor:
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
    wanted = needs[0] | needs[1] << 1 | needs[2] << 2 | needs[3] << 3
    if wanted == 0 or (grad_loss is None and grad_terms is None):
        return None, None, None, None, *_NO_GRADIENTS
    gradients = _backward(grad_loss, grad_terms, *ctx.saved_tensors, *ctx.scalars, wanted)
    if wanted != 15:
        gradients = tuple(g if needs[k] else None for k, g in enumerate(gradients))
    return *gradients, *_NO_GRADIENTS


torch.library.register_autograd("fastccsa::zipped_ccsa", _backward_of, setup_context=_setup_context)


class _Zipped(torch.autograd.Function):
    """The same gradient as the registered one, without its Python wrappers: half of a small batch's time."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output = _forward(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_backward_of)


def _promote(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Under autocast, streams may come in different dtypes: all go to the widest, as torch's own losses do."""
    dtypes = {x.dtype for x in inputs[:4] if x is not None}
    if len(dtypes) <= 1:
        return inputs
    widest = torch.float64 if torch.float64 in dtypes else torch.float32
    return (*(x if x is None else x.to(widest) for x in inputs[:4]), *inputs[4:])


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
    class_weight1: Tensor | None,
    class_weight2: Tensor | None,
    pair_weight: Tensor | None,
    margin: float,
    alpha: float,
    reduction: str,
) -> tuple[Tensor, Tensor]:
    """The fused op: the loss ([] or [N]) and its four terms ([4] or [4, N])."""
    code = REDUCTIONS.get(reduction)
    if code is None:
        raise InputError(f"reduction is {reduction!r}; choose one of {', '.join(map(repr, REDUCTIONS))}")
    inputs = (
        logits1, logits2, features1, features2, target1, target2,
        class_weight1, class_weight2, pair_weight, margin, alpha, code,
    )  # fmt: skip
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(target1.device.type):
        loss, terms, _ = _zipped(*inputs)
    else:
        loss, terms, _ = _Zipped.apply(*inputs)
    return loss, terms
