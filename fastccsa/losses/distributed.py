"""The loss over every pair of all ranks' batches, without any rank holding the batches of all.

The second side's blocks go around the ranks in a ring, point to point: at each station a block meets the rows of that
rank, takes along its gradient so far, and is passed on. After as many steps as there are ranks it is home again, with
the gradient of all pairs. A rank holds its own rows and one block, and sends and receives one block a step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from fastccsa.losses import functional
from fastccsa.ops import all_pairs as _all_pairs
from fastccsa.ops.library import accumulation_dtype
from fastccsa.system.errors import InputError

__all__ = [
    "AlignmentTerms",
    "around_the_ring",
    "contrastive_alignment",
    "contrastive_alignment_terms",
    "rows_of_each_rank",
]


class AlignmentTerms(NamedTuple):
    """The loss over all pairs of all ranks, scalars.

    Attributes:
        loss: alignment + separation, which can be differentiated.
        alignment, separation: its two parts, for reading alone: they carry no gradient.
    """

    loss: Tensor
    alignment: Tensor
    separation: Tensor


def rows_of_each_rank(rows: int, group: dist.ProcessGroup, device: torch.device) -> list[int]:
    """How many rows each rank of the group has: one number a rank is gathered."""
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, torch.tensor([rows], device=device), group=group)
    return [int(count) for count in counts]


def around_the_ring(
    block: Sequence[Tensor], counts: Sequence[int], group: dist.ProcessGroup
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """The blocks of all ranks, this one's first, with the rank that each is from; at most two are held at a time.

    Args:
        block: tensors of this rank, a row each along dimension 0; on all ranks of the same dtypes and widths.
        counts: rows of each rank's block, see :func:`rows_of_each_rank`.
        group: the ranks.
    """
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    held = tuple(tensor.contiguous() for tensor in block)
    for step in range(world):
        yield (rank - step) % world, held
        if step + 1 < world:
            held = tuple(_pass_on(tensor, counts[(rank - step - 1) % world], group) for tensor in held)


def _pass_on(tensor: Tensor, rows: int, group: dist.ProcessGroup) -> Tensor:
    """Send a tensor to the next rank; what comes from the rank before, of so many rows."""
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    after, before = (dist.get_global_rank(group, r % world) for r in (rank + 1, rank - 1))
    received = tensor.new_empty((rows, *tensor.shape[1:]))
    operations = [dist.P2POp(dist.isend, tensor, after, group), dist.P2POp(dist.irecv, received, before, group)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    return received


class _Ring(torch.autograd.Function):
    """The sum over all pairs, and its gradients, which the forward pass leaves behind."""

    @staticmethod
    def forward(
        ctx: Any, z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float,
        mean: bool, precision: str, group: dist.ProcessGroup,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        counts1, counts2 = (rows_of_each_rank(len(z), group, z.device) for z in (z1, z2))
        gradient1 = torch.zeros_like(z1, dtype=accumulation_dtype(z1.dtype), memory_format=torch.contiguous_format)
        travelling = torch.zeros_like(z2, dtype=gradient1.dtype, memory_format=torch.contiguous_format)
        total = z1.new_zeros(2, dtype=torch.float64)
        world = dist.get_world_size(group)
        for source, (z, y) in around_the_ring((z2.detach(), y2), counts2, group):
            _, terms, own, of_block = _all_pairs.all_pairs_with_gradients(
                z1, z, y1, y, weight, margin=margin, mean=False, wanted=3, apart=False, precision=precision
            )
            total += terms
            gradient1 += own[0]
            travelling += of_block[0]
            if world > 1:
                travelling = _pass_on(travelling, counts2[(source - 1) % world], group)
        dist.all_reduce(total, group=group)
        scale = 1 / (sum(counts1) * sum(counts2)) if mean else 1.0
        ctx.save_for_backward(gradient1.mul_(scale), travelling.mul_(scale))
        ctx.group, ctx.dtype = group, z1.dtype
        terms = (scale * total).to(gradient1.dtype)
        ctx.mark_non_differentiable(terms)
        return terms.sum(), terms

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        upstream = upstream.clone()
        dist.all_reduce(upstream, group=ctx.group)
        gradients = (
            (upstream * unit).to(ctx.dtype) if needed else None
            for unit, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[:2], strict=True)
        )
        return (*gradients, *(None,) * 7)


def contrastive_alignment(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    reduction: str = "mean",
    precision: str = "ieee",
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """``L_CSA`` over every row of all ranks' first sides with every row of all ranks' second sides.

    Every rank gets the loss of the whole. Gradients are those of the sum of what all ranks return, as for torch's own
    differentiable collectives: the average over ranks that DistributedDataParallel takes is then the gradient of the
    loss. All ranks have to call it, and its backward pass, together.

    Args:
        z1: [N1, D] features of this rank's first stream; N1 may differ from rank to rank, and be 0.
        z2: [N2, D] of its second.
        y1: [N1] int64 labels.
        y2: [N2] int64 labels.
        pair_weight: [C, C], the same on all ranks, or None.
        margin: distance beyond which pairs of different classes no longer matter.
        reduction: ``"mean"`` over all pairs of all ranks, or ``"sum"``.
        precision: see :func:`fastccsa.functional.weighted_ccsa_loss`.
        group: the ranks; None is all of them.

    Raises:
        RuntimeError: as for :func:`fastccsa.functional.contrastive_alignment`.
        InputError: torch.distributed is not initialised, or an unknown ``reduction`` or ``precision``.
    """
    return contrastive_alignment_terms(z1, z2, y1, y2, pair_weight, margin, reduction, precision, group).loss


def contrastive_alignment_terms(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    reduction: str = "mean",
    precision: str = "ieee",
    group: dist.ProcessGroup | None = None,
) -> AlignmentTerms:
    """The loss of `contrastive_alignment`, and what it is the sum of; arguments and errors are the same."""
    functional._check_alignment("all", reduction, precision)
    if not dist.is_initialized():
        raise InputError("torch.distributed is not initialised; for one process use functional.contrastive_alignment")
    weight = functional._as_weight(pair_weight, z1)
    ranks = group or dist.distributed_c10d._get_default_group()
    loss, terms = _Ring.apply(z1, z2, y1, y2, weight, margin, reduction == "mean", precision, ranks)
    return AlignmentTerms(loss, *terms.unbind(0))
