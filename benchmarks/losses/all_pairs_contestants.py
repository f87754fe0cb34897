"""The contestants of the loss over all pairs: fastccsa, and ways to compute the same loss without it.

Every loss function takes ``(features1, features2, target1, target2)`` and returns the mean over all pairs, without
weights, which most contestants do not support.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks.harness.benchmark import CannotRun
from benchmarks.harness.results import OURS
from benchmarks.losses.common import (
    Contestant,
    LossFunction,
    Problem,
    compiled,
    plain,
    squared_contrastive_loss,
    sums,
)  # fmt: skip
from fastccsa import functional
from fastccsa.ops.choices import Precision

MARGIN = 30.0
CHUNK = 512  # rows of the matrix that the chunked rival holds at a time


def dense_sum(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    """Sum over all pairs with their whole matrix; exact enough in float64 unless points are near each other."""
    squared = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.t()).clamp(min=0)
    distance = squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt()
    return torch.where(y1[:, None] == y2, squared, (MARGIN - distance).clamp(min=0).square()).sum()


def _dense(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    return dense_sum(a.to(sums(a)), b.to(sums(b)), y1, y2) / (len(a) * len(b))


def _pairs_of(distance: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    return torch.where(y1[:, None] == y2, distance.square(), (MARGIN - distance).clamp(min=0).square())


def _by_cdist(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    return _pairs_of(torch.cdist(a.to(sums(a)), b.to(sums(b))), y1, y2).mean()


def _by_differences(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    return _pairs_of(torch.linalg.vector_norm(a[:, None] - b, dim=2, dtype=sums(a)), y1, y2).mean()


def _chunked(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    def part(a: Tensor, y1: Tensor) -> Tensor:
        return _pairs_of(torch.cdist(a.to(sums(a)), b.to(sums(b))), y1, y2).sum()

    chunks = zip(a.split(CHUNK), y1.split(CHUNK), strict=True)
    return torch.stack([checkpoint(part, x, y, use_reentrant=False) for x, y in chunks]).sum() / (len(a) * len(b))


def _fastccsa(precision: Precision, problem: Problem, cell: Any) -> LossFunction:
    if precision != "ieee" and not problem.inputs[0].is_cuda:
        raise CannotRun("on a CPU every precision is ieee")
    return LossFunction(partial(functional.contrastive_alignment, margin=MARGIN, pairs="all", precision=precision))


def _keops(problem: Problem, cell: Any) -> LossFunction:
    lazy_tensor()
    return LossFunction(partial(lazy_loss, margin=MARGIN), "LazyTensor")


def lazy_tensor() -> Any:
    """Return KeOps's class of lazy tensors.

    Raises:
        CannotRun: KeOps is not installed.
    """
    try:
        from pykeops.torch import LazyTensor
    except ImportError as error:
        raise CannotRun("not installed: pip install pykeops") from error
    return LazyTensor


def lazy_loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor, margin: float) -> Tensor:
    """Compute the mean over all pairs by KeOps, which never holds their matrix."""
    LazyTensor = lazy_tensor()
    dtype = sums(a)
    x, y = LazyTensor(a.to(dtype)[:, None].contiguous()), LazyTensor(b.to(dtype)[None].contiguous())
    label1 = LazyTensor(y1.to(dtype)[:, None, None].contiguous())
    label2 = LazyTensor(y2.to(dtype)[None, :, None].contiguous())
    squared = ((x - y) ** 2).sum(-1)
    same = (0.5 - (label1 - label2).abs()).step()
    separated = (margin - (squared + torch.finfo(dtype).tiny).sqrt()).relu()
    pairs = same * squared + (1 - same) * separated**2
    return pairs.sum(1).sum() / (len(a) * len(b))


def _metric_learning(problem: Problem, cell: Any) -> LossFunction:
    contrastive = squared_contrastive_loss(MARGIN)

    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        return contrastive(a.to(sums(a)), y1, ref_emb=b.to(sums(b)), ref_labels=y2) / (len(a) * len(b))

    return LossFunction(loss, "ContrastiveLoss, its two terms squared")


# ---- all contestants, and estimates of the memory that they hold ----


def _rows(copies: float) -> Callable[[Any], float]:
    """Estimate this many copies of both sides, in float32 or wider."""
    return lambda cell: copies * sum(cell.sides) * cell.width * (8 if cell.dtype == "float64" else 4)


def _matrices(count: float) -> Callable[[Any], float]:
    """Estimate this many matrices of all pairs, and a few copies of the rows."""
    return lambda cell: count * cell.matrix_bytes + _rows(4)(cell)


def _ours(cell: Any) -> float:
    return _rows(5)(cell) + 64 * 2**20


def _chunks(cell: Any) -> float:
    return _matrices(8 * min(1, CHUNK / cell.rows))(cell)


CONTESTANTS = (
    Contestant("fastccsa", partial(_fastccsa, "ieee"), _ours, kind=OURS),
    Contestant("fastccsa, bf16x3", partial(_fastccsa, "bf16x3"), _ours),
    Contestant("fastccsa, tf32", partial(_fastccsa, "tf32"), _ours),
    Contestant("torch.cdist", plain(_by_cdist), _matrices(6)),
    Contestant("differences", plain(_by_differences), lambda cell: 3 * cell.width * cell.matrix_bytes),
    Contestant("torch.compile", compiled(_dense, "|a|^2 + |b|^2 - 2ab, default mode"), _matrices(4), compiled=True),
    Contestant("chunked", plain(_chunked, f"torch.cdist of {CHUNK} rows at a time, with checkpointing"), _chunks),
    Contestant("KeOps", _keops, _rows(6)),
    Contestant("pytorch-metric-learning", _metric_learning, _matrices(24)),
)
