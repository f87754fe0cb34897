"""A memory of past features, so that a small batch meets many more than itself.

Cross-batch memory: Wang, Zhang, Huang and Scott, "Cross-Batch Memory for Embedding Learning" (CVPR 2020).
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fastccsa.losses import functional
from fastccsa.losses.distributed import around_the_ring, rows_of_each_rank
from fastccsa.system.errors import InputError

__all__ = ["FeatureMemory", "PairMemory"]


class FeatureMemory(nn.Module):
    """A ring of detached features with their labels and domains; the oldest make room for the newest.

    The rows are plain tensors that the loss over all pairs takes as its second side. They carry no gradient, and the
    loss then spends nothing on theirs. The ring is made of buffers: it moves with the module and is saved with it.

    Args:
        capacity: how many rows are kept, 1 or more.
        width: D, columns of the features.
        dtype: of the features kept; what comes in another floating dtype is converted.

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
        for name, value in (("capacity", capacity), ("width", width)):
            if value < 1:
                raise InputError(f"{name} is {value}; a memory needs at least 1")
        if not dtype.is_floating_point:
            raise InputError(f"dtype is {dtype}; features are floating: choose float32, bfloat16, float16 or float64")
        self.register_buffer("_features", torch.zeros(capacity, width, dtype=dtype))
        self.register_buffer("_labels", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("_domains", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("_pushed", torch.zeros((), dtype=torch.int64))
        self._count = 0  # the same number: reading it here need not wait for a GPU
        self.register_load_state_dict_post_hook(lambda module, _: module._recount())

    def _recount(self) -> None:
        self._count = int(self._pushed)

    @property
    def capacity(self) -> int:
        """How many rows are kept."""
        return self._features.shape[0]

    def __len__(self) -> int:
        """Rows in the memory now."""
        return min(self._count, self.capacity)

    @property
    def features(self) -> Tensor:
        """[len, D], in the order of the ring. A view: the next push writes to it."""
        return self._features[: len(self)]

    @property
    def labels(self) -> Tensor:
        """[len] int64."""
        return self._labels[: len(self)]

    @property
    def domains(self) -> Tensor:
        """[len] int64."""
        return self._domains[: len(self)]

    @torch.no_grad()
    def push(self, features: Tensor, labels: Tensor, domains: Tensor, group: dist.ProcessGroup | None = None) -> None:
        """Remember a batch, detached; of more rows than there is room for, the last.

        Under torch.distributed, with `group` (``torch.distributed.group.WORLD`` for all), every rank remembers the
        batches of all ranks, in the order of the ranks: memories stay equal. Batches, of any sizes, go around the ranks
        in a ring, so that a rank holds two of them at a time.

        Args:
            features: [B, D], floating.
            labels: [B] int64.
            domains: [B] int64.
            group: the ranks to gather from; None keeps what this process saw.

        Raises:
            InputError: shapes or dtypes that do not fit.
        """
        self._check(features, labels, domains)
        rows: tuple[Tensor, ...] = (
            features.detach().to(self._features),
            labels.to(self._labels),
            domains.to(self._domains),
        )
        if group is None:
            counts, blocks = [len(labels)], iter([(0, rows)])
        else:
            counts = rows_of_each_rank(len(labels), group, self._features.device)
            blocks = around_the_ring(rows, counts, group)
        oldest = self._count + sum(counts) - self.capacity
        for rank, block in blocks:
            self._write(block, self._count + sum(counts[:rank]), oldest)
        self._count += sum(counts)
        self._pushed.fill_(self._count)

    def _write(self, rows: tuple[Tensor, ...], begin: int, oldest: int) -> None:
        """Put rows where their numbers belong, which count from `begin`; those below `oldest` have no room."""
        count = len(rows[1])
        skipped = min(max(oldest - begin, 0), count)
        first = (begin + skipped) % self.capacity
        until_end = min(count - skipped, self.capacity - first)
        for ring, new in zip((self._features, self._labels, self._domains), rows, strict=True):
            newest = new[skipped:]
            ring[first : first + until_end] = newest[:until_end]
            ring[: count - skipped - until_end] = newest[until_end:]

    def clear(self) -> None:
        """Forget everything."""
        self._count = 0
        self._pushed.zero_()

    def extra_repr(self) -> str:
        """Its size, for ``print(memory)``."""
        return f"{len(self)} of {self.capacity} rows, width={self._features.shape[1]}"

    def _check(self, features: Tensor, labels: Tensor, domains: Tensor) -> None:
        width = self._features.shape[1]
        if features.dim() != 2 or features.shape[1] != width or not features.is_floating_point():
            raise InputError(
                f"features must be floating [B, {width}], but they are {features.dtype} {list(features.shape)}"
            )
        for name, values in (("labels", labels), ("domains", domains)):
            if values.shape != features.shape[:1] or values.dtype != torch.int64:
                expected = f"int64 [{len(features)}], a value a row of features"
                raise InputError(f"{name} must be {expected}, but they are {values.dtype} {list(values.shape)}")


class PairMemory(nn.Module):
    """Both streams of CCSA with a memory each: a batch of one stream meets all that the other one's memory holds.

    The pair terms are means over all of these pairs. Each image's gradient is that of its mean over the other stream's
    memory, so a larger memory makes it steadier and never smaller: ``alpha`` keeps its meaning. With memories of just
    one batch it is the loss over all pairs of that batch.

    Args:
        capacity: rows that each stream's memory holds; at least a batch.
        width: D, columns of the features.
        dtype: of the features kept, and what the terms are computed in.

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
        precision: str = "ieee",
        group: dist.ProcessGroup | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Remember a batch of both streams; then the alignment and the separation of it with both memories, scalars.

        Args:
            features: [B, D] of each stream, B no larger than the capacity.
            targets: [B] int64 labels of each.
            domains: [B] int64 domains of each.
            pair_weight: [C, C], rows by the first stream's label, or None. The rows of a memory were drawn apart from
                the batch, so the weights are those of independent draws: ``PairSampler.probabilities(pairs="all")``.
            margin: distance beyond which pairs of different classes no longer matter.
            precision: see :func:`fastccsa.functional.weighted_ccsa_loss`.
            group: the ranks whose batches are remembered, as for :meth:`FeatureMemory.push`; together they must fit.
                The terms are means over this rank's rows: weighted by those, they average to the whole batch's.

        Raises:
            InputError: shapes or dtypes that do not fit, or a batch larger than the capacity.
        """
        for memory, z, y, domain in zip((self.first, self.second), features, targets, domains, strict=True):
            if len(z) > memory.capacity:
                raise InputError(f"a batch of {len(z)} does not fit into a memory of {memory.capacity} rows")
            memory.push(z, y, domain, group)
        z1, z2 = (z.to(self.first.features.dtype) for z in features)
        options = (pair_weight, margin, "all", "mean", precision)
        # The memories hold the batch already, detached: each stream gets its gradient from one of the two.
        of_first = functional.contrastive_alignment_terms(
            z1, self.second.features, targets[0], self.second.labels, *options
        )
        of_second = functional.contrastive_alignment_terms(
            self.first.features, z2, self.first.labels, targets[1], *options
        )
        alignment, separation = (_mean_with_both_gradients(a, b) for a, b in zip(of_first, of_second, strict=True))
        return alignment, separation


def _mean_with_both_gradients(a: Tensor, b: Tensor) -> Tensor:
    """The mean of two estimates of one quantity, each of which has the gradient of other inputs, whole."""
    total = a + b
    return total - total.detach() / 2
