"""A memory of past features, so that a small batch is compared with many more rows than it has.

Cross-batch memory: Wang, Zhang, Huang and Scott, "Cross-Batch Memory for Embedding Learning" (CVPR 2020).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fastccsa.losses.functional import contrastive_alignment_terms
from fastccsa.losses.validate import check_memory_batch, check_memory_size
from fastccsa.ops.choices import Precision
from fastccsa.system.errors import InputError

if TYPE_CHECKING:
    import torch.distributed as dist

__all__ = ["FeatureMemory", "PairMemory"]


class FeatureMemory(nn.Module):
    """A ring buffer of detached features with their labels and domains: new rows overwrite the oldest.

    Its rows are plain tensors, which the loss over all pairs takes as its second side. They require no gradient, so the
    loss computes none for them. They are buffers of the module: they move with it and are saved with it.

    Args:
        capacity: maximum number of rows, 1 or more.
        width: D, the number of columns of the features.
        dtype: floating dtype in which features are kept; features of another dtype are converted.

    Raises:
        InputError: a capacity or width below 1, or a dtype that is not floating.

    Example:
        >>> import torch
        >>> from fastccsa import FeatureMemory, functional
        >>> memory = FeatureMemory(capacity=65536, width=512)
        >>> z, y, domain = torch.randn(32, 512, requires_grad=True), torch.arange(32) % 7, torch.zeros(32).long()
        >>> memory.push(z, y, domain)
        >>> loss = functional.contrastive_alignment(z, memory.features, y, memory.labels, pairs="all")
    """

    _features: Tensor
    _labels: Tensor
    _domains: Tensor
    _pushed: Tensor

    def __init__(self, capacity: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        check_memory_size(capacity, width, dtype)
        self.register_buffer("_features", torch.zeros(capacity, width, dtype=dtype))
        self.register_buffer("_labels", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("_domains", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("_pushed", torch.zeros((), dtype=torch.int64))
        self._count = 0  # the value of _pushed, readable without a host sync
        self.register_load_state_dict_post_hook(_recount)

    @property
    def capacity(self) -> int:
        """Maximum number of rows."""
        return self._features.shape[0]

    def __len__(self) -> int:
        """Count the rows that are kept now."""
        return min(self._count, self.capacity)

    @property
    def features(self) -> Tensor:
        """[len, D] features, in the order of the ring. A view: the next push writes to it."""
        return self._features[: len(self)]

    @property
    def labels(self) -> Tensor:
        """[len] int64 labels of the rows of `features`."""
        return self._labels[: len(self)]

    @property
    def domains(self) -> Tensor:
        """[len] int64 domains of the rows of `features`."""
        return self._domains[: len(self)]

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor, domains: Tensor, group: dist.ProcessGroup | None = None) -> None:
        """Store a batch, detached. If the batch is larger than the capacity, its last rows are kept.

        Under torch.distributed, with ``group`` (``torch.distributed.group.WORLD`` for all ranks), every rank stores the
        batches of all ranks, in the order of the ranks, so that all memories stay equal. The batches may differ in
        size. They travel around the ranks in a ring, so a rank holds at most two of them at a time.

        Args:
            features: [B, D], floating.
            labels: [B] int64.
            domains: [B] int64.
            group: the ranks whose batches are stored; None stores only the batch of this process.

        Raises:
            InputError: a tensor of another shape or dtype.
        """
        check_memory_batch(features, labels, domains, width=self._features.shape[1])
        rows: tuple[Tensor, ...] = (
            features.detach().to(self._features),
            labels.to(self._labels),
            domains.to(self._domains),
        )
        if group is None:
            counts, blocks = [len(labels)], iter([(0, rows)])
        else:
            from fastccsa.losses.distributed import around_the_ring, rows_of_each_rank

            counts = rows_of_each_rank(len(labels), group, self._features.device)
            blocks = around_the_ring(rows, counts, group)
        oldest = self._count + sum(counts) - self.capacity
        for rank, block in blocks:
            self._write(block, self._count + sum(counts[:rank]), oldest)
        self._count += sum(counts)
        self._pushed.fill_(self._count)

    def _write(self, rows: tuple[Tensor, ...], begin: int, oldest: int) -> None:
        """Write rows into the ring.

        Rows are numbered in the order in which they were pushed: the first of these has the number `begin`, and only
        rows from the number `oldest` on are kept.
        """
        count = len(rows[1])
        skipped = min(max(oldest - begin, 0), count)
        first = (begin + skipped) % self.capacity
        until_end = min(count - skipped, self.capacity - first)
        for ring, new in zip((self._features, self._labels, self._domains), rows, strict=True):
            newest = new[skipped:]
            ring[first : first + until_end] = newest[:until_end]
            ring[: count - skipped - until_end] = newest[until_end:]

    def clear(self) -> None:
        """Remove all rows."""
        self._count = 0
        self._pushed.zero_()

    def extra_repr(self) -> str:
        """Return its size, for ``print(memory)``."""
        return f"{len(self)} of {self.capacity} rows, width={self._features.shape[1]}"


def _recount(memory: FeatureMemory, _: object) -> None:
    """Read the number of rows after loading. A function of the module, so that memories can be pickled."""
    if not memory._pushed.is_meta:
        memory._count = int(memory._pushed)


class PairMemory(nn.Module):
    """One memory for each stream of CCSA: a batch of one stream is compared with the other stream's memory.

    The pair terms are means over all of these pairs. Each image's gradient is the gradient of its mean over the other
    stream's memory: a larger memory makes it less noisy but not smaller, so ``alpha`` keeps its meaning. If the
    memories hold exactly one batch, the terms are those of the loss over all pairs of that batch.

    Args:
        capacity: maximum number of rows of each stream's memory; at least the size of a batch.
        width: D, the number of columns of the features.
        dtype: floating dtype in which features are kept and the terms are computed.

    Raises:
        InputError: as for :class:`FeatureMemory`.
    """

    def __init__(self, capacity: int, width: int, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.first = FeatureMemory(capacity, width, dtype)
        self.second = FeatureMemory(capacity, width, dtype)

    def terms(
        self,
        features: tuple[Tensor, Tensor],
        targets: tuple[Tensor, Tensor],
        domains: tuple[Tensor, Tensor],
        pair_weight: Tensor | None = None,
        margin: float = 50.0,
        precision: Precision = "ieee",
        group: dist.ProcessGroup | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Store a batch of both streams, then return its alignment with both memories and its separation from them.

        Args:
            features: [B, D], floating, of each stream; B is at most the capacity.
            targets: [B] int64 labels of each stream.
            domains: [B] int64 domains of each stream.
            pair_weight: [C, C] weights, 0 or more, rows by the first stream's label; None is 1 for each. The rows of a
                memory were drawn independently of the batch, so use the weights of independent draws:
                ``PairSampler.probabilities(pairs="all")``.
            margin: distance beyond which pairs of different classes no longer matter, in units of the features.
            precision: see :func:`fastccsa.functional.weighted_ccsa_loss`.
            group: the ranks whose batches are stored, as for :meth:`FeatureMemory.push`; the memory must hold the
                batches of all ranks together. The terms are means over this rank's rows. Averaged over the ranks with
                their row counts as weights, they are the terms of the whole batch.

        Returns:
            ``(alignment, separation)``: scalars; float32, or float64 for memories of float64.

        Raises:
            InputError: a tensor of another shape or dtype, or a batch larger than the capacity.
        """
        for memory, z, y, domain in zip((self.first, self.second), features, targets, domains, strict=True):
            if len(z) > memory.capacity:
                raise InputError(f"a batch of {len(z)} does not fit into a memory of {memory.capacity} rows")
            memory.push(z, y, domain, group)
        z1, z2 = (z.to(self.first.features.dtype) for z in features)
        y1, y2 = targets
        # The memories already hold the batch, detached, so each stream gets its gradient from one of the two calls.
        of_first, of_second = (
            contrastive_alignment_terms(
                *sides, pair_weight=pair_weight, margin=margin, pairs="all", reduction="mean", precision=precision
            )
            for sides in (
                (z1, self.second.features, y1, self.second.labels),
                (self.first.features, z2, self.first.labels, y2),
            )
        )
        alignment, separation = (_mean_with_both_gradients(a, b) for a, b in zip(of_first, of_second, strict=True))
        return alignment, separation


def _mean_with_both_gradients(a: Tensor, b: Tensor) -> Tensor:
    """Average two estimates of one quantity that depend on different inputs, with the full gradient of each."""
    total = a + b
    return total - total.detach() / 2
