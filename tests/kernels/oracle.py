"""The expected results of a call of the loss, and the error that a kernel may have."""

from __future__ import annotations

import torch
from torch import Tensor

from fastccsa import reference

from .cases import GRADIENTS, Call, Result


def evaluate(call: Call, dtype: torch.dtype) -> dict[str, Tensor]:
    """Compute loss, terms and gradients with plain PyTorch in `dtype`."""
    inputs = [None if x is None else x.detach().to(dtype).requires_grad_() for x in call.inputs]
    *class_weights, pair_weight = (w if w is None else w.to(dtype) for w in (*call.class_weights, call.pair_weight))
    terms = [torch.zeros(call.pairs if call.reduction == "none" else (), dtype=dtype)] * 4
    for k in range(2):
        if inputs[k] is not None:
            terms[k] = reference.weighted_cross_entropy(inputs[k], call.targets[k], class_weights[k], call.reduction)
    if inputs[2] is not None:
        values = reference.pair_terms(*inputs[2:], *call.targets, pair_weight, call.margin)
        terms[2:] = (_reduced(value, call.reduction) for value in values)
    loss = (1 - call.alpha) * (terms[0] + terms[1]) + call.alpha * (terms[2] + terms[3])
    stacked = torch.stack(terms)

    upstream = [(loss, call.grad_loss), (stacked, call.grad_terms)]
    total = sum((value * grad.to(dtype)).sum() for value, grad in upstream if grad is not None)
    leaves = {name: x for name, x, w in zip(GRADIENTS, inputs, call.needs_grad, strict=True) if w and x is not None}
    gradients = torch.autograd.grad(total, list(leaves.values())) if leaves else ()
    return {"loss": loss.detach(), "terms": stacked.detach(), **dict(zip(leaves, gradients, strict=True))}


def _reduced(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    return values.sum() if reduction == "sum" else values.mean()


def assert_as_good_as_torch(call: Call, result: Result) -> None:
    """Check that the error against float64 is at most twice that of plain PyTorch, in the dtype of sums.

    Both are allowed one rounding relative to the largest value, because PyTorch may be exact by chance. In float64 the
    reference has rounding errors too, and a sum of n terms is allowed n roundings. Gradients in 16 bits may differ by
    their last rounding.
    """
    assert result.fault == (None, 0, 0)
    assert result.saved.isfinite().all(), f"{call.name}: a part of the saved buffer was not written"
    exact, plain = evaluate(call, torch.float64), evaluate(call, call.acc)
    actual = result.tensors()
    assert actual.keys() == exact.keys()
    roundings = call.pairs + sum(call.sizes) if call.dtype == torch.float64 else 1
    for name, truth in exact.items():
        assert actual[name].shape == truth.shape
        unit = torch.finfo(call.acc).eps * truth.abs().max()
        bound = 2 * ((plain[name].double() - truth).abs().max() + roundings * unit)
        error = (actual[name].double() - truth).abs()
        excess = (error - _last_rounding(truth, actual[name].dtype, call.acc)).max()
        assert excess <= bound, f"{call.name} ({result.kernel}): {name} is off by {excess:.3g}, more than {bound:.3g}"


def _last_rounding(values: Tensor, dtype: torch.dtype, acc: torch.dtype) -> Tensor:
    """Return half a unit in the last place of each value if the results are rounded to `dtype` at the end, else 0."""
    if dtype == acc:
        return torch.zeros_like(values)
    kind = torch.finfo(dtype)
    return values.abs().clamp(min=kind.smallest_normal) * kind.eps / 2
