"""Arithmetic with the weights and buffers of whole models."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _pairs(mine: nn.Module, theirs: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the floating-point tensors of two equal models; the integers of ``theirs`` are copied to ``mine``."""
    ours: list[Tensor] = []
    others: list[Tensor] = []
    pairs = zip(
        [*mine.parameters(), *mine.buffers()],
        [*theirs.parameters(), *theirs.buffers()],
        strict=True,
    )
    for a, b in pairs:
        if a.is_floating_point():
            ours.append(a)
            others.append(b.detach())
        else:
            a.copy_(b)
    return ours, others


@torch.no_grad()
def blend(mine: nn.Module, theirs: nn.Module, share: float) -> None:
    """Move ``mine`` towards ``theirs``, in place: ``mine += share (theirs - mine)``; integers are copied."""
    torch._foreach_lerp_(*_pairs(mine, theirs), share)


@torch.no_grad()
def blend_on_device(mine: nn.Module, theirs: nn.Module, share: Tensor) -> None:
    """Do what `blend` does with a ``share`` that only the device knows, float32 []; without a host sync."""
    ours, others = _pairs(mine, theirs)
    steps = torch._foreach_sub(others, ours)
    torch._foreach_mul_(steps, share)
    torch._foreach_add_(ours, steps)
