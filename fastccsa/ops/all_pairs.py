"""The loss over every pair of two sets, without their matrix.

One op with a gradient, and three ways to compute it. Each leaves the gradients behind, and the backward pass only
scales them:

- few pairs one by one from the differences of their rows, in one call: what takes time then is not the pairs, but
  calls. On CUDA these are two launches, and the host does not wait for them;
- on the CPU all others in one call, with products of its own (``csrc/all_pairs/cpu/panels.cpp``);
- on CUDA in tiles (``_all_pairs_tiles.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastccsa.ops.all_pairs_checks import check, check_values
from fastccsa.ops.all_pairs_tiles import PAIRS_WITHOUT_WAITING, needs_to_wait, sweep_tiles
from fastccsa.ops.allocator import large_empty
from fastccsa.ops.library import accumulation_dtype
from fastccsa.ops.products import products
from fastccsa.ops.profiling import stage

_direct = torch.ops.fastccsa.all_pairs_direct.default
_panels = torch.ops.fastccsa.all_pairs_panels.default

_FEW_NUMBERS = 1 << 20
_PLAIN = (Tensor, torch.nn.Parameter)
# Other processors are not measured: there torch's products are trusted more.
PANELS_ON_CPU: bool = torch.ops.fastccsa.instruction_set() in ("avx2", "avx512")
FEW_PAIRS = 16384 if PANELS_ON_CPU else 65536  # on the CPU, by measurement
FEW_PAIRS_ON_CUDA = 65536  # not measured


# ---- the ways ----


def _few_pairs(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float, scale: float,
    wanted: int, apart: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Pair by pair."""
    if z1.device.type == "cpu":  # kernels on CUDA take any strides, and 16 bits
        acc = accumulation_dtype(z1.dtype)
        z1, z2 = z1.to(acc).contiguous(), z2.to(acc).contiguous()
    return _result(_direct(z1, z2, y1, y2, weight, margin, scale, wanted, apart), z1, z2, apart)


def _result(found: tuple[Tensor, ...], z1: Tensor, z2: Tensor, apart: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What an op for the whole loss returns, with its planes of gradients apart."""
    loss, terms, g1, g2 = found
    planes = [g.view(_planes(len(g), apart), *z.shape) for g, z in ((g1, z1), (g2, z2))]
    return loss, terms, planes[0], planes[1]


def _are_few(z1: Tensor, z2: Tensor) -> bool:
    """Whether pairs are computed one by one."""
    return 0 < len(z1) * len(z2) <= (FEW_PAIRS if z1.device.type == "cpu" else FEW_PAIRS_ON_CUDA)


def _go_in_panels(z1: Tensor, z2: Tensor) -> bool:
    """Whether one call does it all, by products of its own."""
    return z1.device.type == "cpu" and PANELS_ON_CPU


# ---- the op ----


def _planes(wanted: int, apart: bool) -> int:
    return 0 if not wanted else 2 if apart else 1


def _empty_gradient(z: Tensor, wanted: int, apart: bool) -> Tensor:
    return z.new_empty((_planes(wanted, apart), *z.shape), dtype=accumulation_dtype(z.dtype))


def _compute(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, labels: int, margin: float,
    mean: bool, wanted: int, apart: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Loss [], alignment and separation [2], and the gradients, [1, N, D] together or [2, N, D] apart.

    `labels`: the number of classes, or 0 where nothing bounds the labels. `wanted`: bit k asks for the gradient of
    side k; without it there are no planes.
    """
    check(z1, z2, y1, y2, weight, labels)
    few, classes = _are_few(z1, z2), labels if weight is None else weight.shape[0]
    waits = z1.device.type == "cpu" if few else needs_to_wait(z1, z2, classes)
    if waits:  # else the kernels look, and nobody waits for them
        _refuse_capture(z1, z2)
        check_values(y1, y2, weight, classes)
    if len(z1) == 0 or len(z2) == 0:
        terms = z1.new_full((2,), torch.nan if mean else 0.0, dtype=accumulation_dtype(z1.dtype))
        g1, g2 = (_empty_gradient(z, wanted >> k & 1, apart).zero_() for k, z in enumerate((z1, z2)))
        return terms.sum(), terms, g1, g2
    scale = 1 / (len(z1) * len(z2)) if mean else 1.0
    with stage("all_pairs forward"):
        if few:
            return _few_pairs(z1, z2, y1, y2, weight, margin, scale, wanted, apart)
        if _go_in_panels(z1, z2):
            return _result(_panels(z1, z2, y1, y2, weight, margin, scale, wanted, apart), z1, z2, apart)
        with torch.autocast(z1.device.type, enabled=False), products(precision):
            return sweep_tiles(z1, z2, y1, y2, weight, classes, margin, scale, wanted, apart, precision, waits)


def _refuse_capture(z1: Tensor, z2: Tensor) -> None:
    """A graph cannot hold what waits for the host; CUDA's own message does not say what does."""
    if z1.is_cuda and torch.cuda.is_current_stream_capturing():
        raise RuntimeError(
            f"a CUDA graph cannot hold the loss over all pairs of {len(z1)} x {len(z2)} rows, for which the host looks "
            f"at labels. It can hold up to {PAIRS_WITHOUT_WAITING} pairs, of no more classes than there are rows"
        )


_op = torch.library.custom_op("fastccsa::all_pairs", _compute, mutates_args=())


@_op.register_fake
def _(z1: Tensor, z2: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wanted, apart = args[6], args[7]
    dtype = accumulation_dtype(z1.dtype)
    g1, g2 = (_empty_gradient(z, wanted >> k & 1, apart) for k, z in enumerate((z1, z2)))
    return z1.new_empty((), dtype=dtype), z1.new_empty((2,), dtype=dtype), g1, g2


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[2:])
    ctx.dtype = inputs[0].dtype
    ctx.set_materialize_grads(False)
    apart = inputs[9]
    ctx.mark_non_differentiable(*output[2 if apart else 1 :])


def _backward(ctx: Any, grad_loss: Tensor | None, grad_terms: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "fastccsa's loss over all pairs has no second derivative; "
            "use the same function of fastccsa.reference where create_graph=True is needed"
        )
    if grad_loss is None and grad_terms is None:
        return (None,) * 11
    with stage("all_pairs backward"):
        gradients = [
            _scaled(unit, grad_loss, grad_terms).to(ctx.dtype) if needed else None
            for unit, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[:2], strict=True)
        ]
    return (*gradients, *(None,) * 9)


def _scaled(unit: Tensor, grad_loss: Tensor | None, grad_terms: Tensor | None) -> Tensor:
    """The gradient of one side from its planes, together or apart."""
    if unit.shape[0] == 1:
        assert grad_loss is not None  # the terms have no gradient then
        few = type(unit) is Tensor and unit.numel() < _FEW_NUMBERS  # else a tracer asks, or it pays
        out = None if few else large_empty(unit, *unit.shape[1:])
        return torch.mul(unit[0], grad_loss, out=out)
    upstream = torch.stack([g.expand(2) for g in (grad_loss, grad_terms) if g is not None]).sum(0)
    return upstream[0] * unit[0] + upstream[1] * unit[1]


_op.register_autograd(_backward, setup_context=_setup_context)


class _Eager(torch.autograd.Function):
    """The same without the op's wrappers, which take longer than a small batch's pairs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = _compute(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_backward)


def all_pairs(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float, reduction: str,
    apart: bool, precision: str, labels: int = 0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Alignment + separation over all pairs, and the two ([2]), which have gradients of their own if `apart`.

    With `apart` each plane of gradients is kept; else their sum alone, and only the loss can be differentiated.
    """
    if z1.dtype != z2.dtype and torch.is_autocast_enabled(z1.device.type):
        widest = torch.promote_types(z1.dtype, z2.dtype)
        widest = widest if widest == torch.float64 else torch.float32
        z1, z2 = z1.to(widest), z2.to(widest)
        weight = None if weight is None else weight.to(widest)
    wanted = (z1.requires_grad | z2.requires_grad << 1) if torch.is_grad_enabled() else 0
    inputs = (z1, z2, y1, y2, weight, labels, margin, reduction != "sum", wanted, apart, precision)
    loss, terms, _, _ = _Eager.apply(*inputs) if _is_eager(z1, z2) else _op(*inputs)
    return loss, terms


def _is_eager(*tensors: Tensor) -> bool:
    """Whether tensors hold numbers, and nobody but autograd looks on."""
    return (
        all(type(x) in _PLAIN for x in tensors)
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def all_pairs_with_gradients(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, *,
    margin: float, mean: bool, wanted: int, apart: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The loss, both terms [2], and the gradients [1, N, D] (with ``apart`` [2, N, D]) as plain results."""
    loss, terms, gradient1, gradient2 = _op(z1, z2, y1, y2, weight, 0, margin, mean, wanted, apart, precision)
    return loss, terms, gradient1, gradient2
