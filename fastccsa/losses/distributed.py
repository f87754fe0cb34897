"""The loss over all pairs of all ranks' batches, without gathering these batches on any rank.

Each rank's rows of the second stream are a block. The blocks travel around the ranks in a ring, point to point. Each
rank compares the block it holds with its own rows of the first stream, and the block's gradient travels with it. After
as many steps as there are ranks, each block's gradient is complete and back on the rank that owns it. A rank holds its
own rows and one block, and sends and receives one block per step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from fastccsa.losses.validate import as_labels, check_options, checked_margin_and_alpha
from fastccsa.ops.all_pairs import all_pairs_with_gradients
from fastccsa.ops.choices import Precision, Reduction
from fastccsa.ops.library import accumulation_dtype, in_accumulation_dtype
from fastccsa.system.errors import InputError

__all__ = [
    "AlignmentTerms",
    "around_the_ring",
    "contrastive_alignment",
    "contrastive_alignment_terms",
    "rows_of_each_rank",
]

BOTH_SIDES = 0b11  # gradients of both sides


class AlignmentTerms(NamedTuple):
    """The loss over all pairs of all ranks, and its terms; scalars.

    Attributes:
        loss: alignment + separation, which is differentiable.
        alignment: the part of the loss from pairs of one class; it has no gradient.
        separation: the part of the loss from pairs of two classes; it has no gradient.
    """

    loss: Tensor
    alignment: Tensor
    separation: Tensor


def rows_of_each_rank(rows: int, group: dist.ProcessGroup, device: torch.device) -> list[int]:
    """Return the number of rows of each rank of the group, gathered with tensors on ``device``."""
    counts = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(dist.get_world_size(group))]
    dist.all_gather(counts, torch.tensor([rows], device=device), group=group)
    return [int(count) for count in counts]


def around_the_ring(
    block: Sequence[Tensor], counts: Sequence[int], group: dist.ProcessGroup
) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
    """Yield the blocks of all ranks, this rank's first, each with the rank that it comes from.

    At most two blocks are held at a time. All ranks must iterate together, to the end.

    Args:
        block: tensors of this rank, all with the same number of rows; their dtypes and widths are equal on all ranks.
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
    """Send a tensor to the next rank and return what the previous rank sends, which has ``rows`` rows."""
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    after, before = (dist.get_global_rank(group, r % world) for r in (rank + 1, rank - 1))
    received = tensor.new_empty((rows, *tensor.shape[1:]))
    operations = [dist.P2POp(dist.isend, tensor, after, group), dist.P2POp(dist.irecv, received, before, group)]
    for work in dist.batch_isend_irecv(operations):
        work.wait()
    return received


class _Options(NamedTuple):
    margin: float
    mean: bool
    precision: Precision
    group: dist.ProcessGroup


class _Ring(torch.autograd.Function):
    """The loss over all pairs; the forward pass computes the gradients too, and the backward pass scales them."""

    @staticmethod
    def forward(
        ctx: Any, z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, options: _Options
    ) -> tuple[Tensor, Tensor]:
        group = options.group
        counts1, counts2 = (rows_of_each_rank(len(z), group, z.device) for z in (z1, z2))
        gradient1 = torch.zeros_like(z1, dtype=accumulation_dtype(z1.dtype), memory_format=torch.contiguous_format)
        travelling = torch.zeros_like(z2, dtype=gradient1.dtype, memory_format=torch.contiguous_format)
        total = z1.new_zeros(2, dtype=torch.float64)
        world = dist.get_world_size(group)
        for source, (z, y) in around_the_ring((z2.detach(), y2), counts2, group):
            _, terms, of_rows, of_block = all_pairs_with_gradients(
                z1, z, y1, y, weight,
                margin=options.margin, mean=False, output_mask=BOTH_SIDES, per_term=False, precision=options.precision,
            )  # fmt: skip
            total += terms
            gradient1 += of_rows[0]
            travelling += of_block[0]
            if world > 1:
                travelling = _pass_on(travelling, counts2[(source - 1) % world], group)
        dist.all_reduce(total, group=group)
        scale = 1 / (sum(counts1) * sum(counts2)) if options.mean else 1.0
        ctx.save_for_backward(gradient1.mul_(scale), travelling.mul_(scale))
        ctx.group, ctx.dtype = group, z1.dtype
        terms = (scale * total).to(gradient1.dtype)
        ctx.mark_non_differentiable(terms)
        return terms.sum(), terms

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        upstream = upstream.clone()
        dist.all_reduce(upstream, group=ctx.group)
        gradient1, gradient2 = (
            (upstream * unit).to(ctx.dtype) if needed else None
            for unit, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[:2], strict=True)
        )
        return gradient1, gradient2, None, None, None, None


def contrastive_alignment(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    reduction: Reduction = "mean",
    precision: Precision = "ieee",
    group: dist.ProcessGroup | None = None,
) -> Tensor:
    """Compute ``L_CSA`` (paper, equations 5, 6 and 8) of all ranks' first streams with all ranks' second streams.

    Every rank returns the loss over the pairs of all ranks. Its gradient is the gradient of the sum of what the ranks
    return, as with torch's differentiable collectives, so the average over ranks that DistributedDataParallel takes is
    the gradient of the loss. All ranks must call this function, and its backward pass, together.

    Args:
        z1: [N1, D] features of this rank's first stream; N1 may differ from rank to rank, and be 0.
        z2: [N2, D] features of its second stream; N2 may differ too.
        y1: [N1] int64 labels; any integers without ``pair_weight``, else in [0, C).
        y2: [N2] int64 labels.
        pair_weight: [C, C] weights, 0 or more, the same on all ranks; None is 1 for each.
        margin: distance beyond which pairs of different classes no longer matter, in units of the features.
        reduction: ``"mean"`` over all pairs of all ranks, or ``"sum"``.
        precision: see :func:`fastccsa.functional.weighted_ccsa_loss`.
        group: the ranks; None is all of them.

    Returns:
        A scalar, the same on all ranks; float32, or float64 for float64 features.

    Raises:
        RuntimeError: as for :func:`fastccsa.functional.contrastive_alignment`.
        InputError: torch.distributed is not initialised, or an unknown ``reduction`` or ``precision``.
    """
    return contrastive_alignment_terms(
        z1, z2, y1, y2, pair_weight, margin=margin, reduction=reduction, precision=precision, group=group
    ).loss


def contrastive_alignment_terms(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    reduction: Reduction = "mean",
    precision: Precision = "ieee",
    group: dist.ProcessGroup | None = None,
) -> AlignmentTerms:
    """Compute the loss of :func:`contrastive_alignment` and its two terms.

    Args and errors: as for :func:`contrastive_alignment`.

    Returns:
        ``(loss, alignment, separation)``: scalars; only the loss has a gradient.
    """
    check_options("all", reduction, precision, classification=False)
    margin, _ = checked_margin_and_alpha(margin, 0.0)
    y1, y2 = as_labels("target1", y1), as_labels("target2", y2)
    ranks = group or dist.group.WORLD
    if ranks is None:
        raise InputError("torch.distributed is not initialised; for one process use functional.contrastive_alignment")
    options = _Options(margin, mean=reduction == "mean", precision=precision, group=ranks)
    loss, terms = _Ring.apply(z1, z2, y1, y2, in_accumulation_dtype("pair_weight", pair_weight, z1), options)
    return AlignmentTerms(loss, *terms.unbind(0))
