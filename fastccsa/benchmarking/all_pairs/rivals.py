"""Who is measured: fastccsa, and the ways to compute the same loss without it.

Every loss function takes ``(features1, features2, target1, target2)`` and returns the mean over all pairs, without
weights: the job that most of them can express.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fastccsa import functional
from fastccsa.benchmarking.all_pairs.cells import Cell
from fastccsa.benchmarking.all_pairs.problem import MARGIN, Problem, dense_sum
from fastccsa.benchmarking.contestants import CannotExpress, LossFunction, Rival
from fastccsa.benchmarking.metric_learning import squared_contrastive_loss
from fastccsa.ops.choices import Precision

__all__ = ["OURS", "RIVALS", "floors"]

CHUNK = 512  # rows whose part of the matrix the chunked rival holds


def _sums(of: Tensor) -> torch.dtype:
    return torch.float64 if of.dtype == torch.float64 else torch.float32


def _pairs_of(distance: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    return torch.where(y1[:, None] == y2, distance.square(), (MARGIN - distance).clamp(min=0).square())


# ---- fastccsa ----


def _fastccsa(precision: Precision) -> Callable[[Problem, Cell], LossFunction]:
    def build(problem: Problem, cell: Cell) -> LossFunction:
        if precision != "ieee" and not problem.inputs[0].is_cuda:
            raise CannotExpress("on a CPU every precision is ieee")

        def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
            return functional.contrastive_alignment(a, b, y1, y2, margin=MARGIN, pairs="all", precision=precision)

        return LossFunction(loss)

    return build


# ---- eager PyTorch ----


def _by_cdist(problem: Problem, cell: Cell) -> LossFunction:
    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        return _pairs_of(torch.cdist(a.to(_sums(a)), b.to(_sums(b))), y1, y2).mean()

    return LossFunction(loss)


def _by_differences(problem: Problem, cell: Cell) -> LossFunction:
    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        distance = torch.linalg.vector_norm(a[:, None] - b, dim=2, dtype=_sums(a))
        return _pairs_of(distance, y1, y2).mean()

    return LossFunction(loss)


def _chunked(problem: Problem, cell: Cell) -> LossFunction:
    def part(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        return _pairs_of(torch.cdist(a.to(_sums(a)), b.to(_sums(b))), y1, y2).sum()

    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        parts = [
            checkpoint(part, x, b, y, y2, use_reentrant=False)
            for x, y in zip(a.split(CHUNK), y1.split(CHUNK), strict=True)
        ]
        return torch.stack(parts).sum() / (len(a) * len(b))

    return LossFunction(loss, f"torch.cdist of {CHUNK} rows at a time, with checkpointing")


# ---- torch.compile ----


def _compiled(problem: Problem, cell: Cell) -> LossFunction:
    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        return dense_sum(a.to(_sums(a)), b.to(_sums(b)), y1, y2) / (len(a) * len(b))

    return LossFunction(torch.compile(loss, fullgraph=True, dynamic=False), "|a|^2 + |b|^2 - 2ab, default mode")


# ---- libraries ----


def _keops(problem: Problem, cell: Cell) -> LossFunction:
    try:
        from pykeops.torch import LazyTensor
    except ImportError as error:
        raise CannotExpress("not installed: pip install pykeops") from error

    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        dtype = _sums(a)
        x, y = LazyTensor(a.to(dtype)[:, None].contiguous()), LazyTensor(b.to(dtype)[None].contiguous())
        label1 = LazyTensor(y1.to(dtype)[:, None, None].contiguous())
        label2 = LazyTensor(y2.to(dtype)[None, :, None].contiguous())
        squared = ((x - y) ** 2).sum(-1)
        same = (0.5 - (label1 - label2).abs()).step()
        apart = (MARGIN - (squared + torch.finfo(dtype).tiny).sqrt()).relu()
        pairs = same * squared + (1 - same) * apart**2
        return pairs.sum(1).sum() / (len(a) * len(b))

    return LossFunction(loss, "LazyTensor")


def _metric_learning(problem: Problem, cell: Cell) -> LossFunction:
    contrastive = squared_contrastive_loss(MARGIN)

    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        return contrastive(a.to(_sums(a)), y1, ref_emb=b.to(_sums(b)), ref_labels=y2) / (len(a) * len(b))

    return LossFunction(loss, "ContrastiveLoss, its two terms squared")


# ---- all of them ----


def _rows(copies: float) -> Callable[[Cell], float]:
    """So many copies of both sides, in float32 or wider."""
    return lambda cell: copies * sum(cell.sides) * cell.width * (8 if cell.dtype == "float64" else 4)


def _matrices(count: float) -> Callable[[Cell], float]:
    """So many matrices of all pairs, and a few copies of the rows."""
    return lambda cell: count * cell.matrix_bytes + _rows(4)(cell)


def _ours(cell: Cell) -> float:
    return _rows(5)(cell) + 64 * 2**20


OURS = Rival("fastccsa", _fastccsa("ieee"), _ours)
RIVALS = (
    OURS,
    Rival("fastccsa, tf32x3", _fastccsa("tf32x3"), _ours),
    Rival("fastccsa, tf32", _fastccsa("tf32"), _ours),
    Rival("torch.cdist", _by_cdist, _matrices(6)),
    Rival("differences", _by_differences, lambda cell: 3 * cell.width * cell.matrix_bytes),
    Rival("torch.compile", _compiled, _matrices(4), compiled=True),
    Rival("chunked", _chunked, lambda cell: 8 * min(1, CHUNK / cell.rows) * cell.matrix_bytes + _rows(4)(cell)),
    Rival("KeOps", _keops, _rows(6)),
    Rival("pytorch-metric-learning", _metric_learning, _matrices(24)),
)


def floors(problem: Problem, cell: Cell) -> dict[str, Callable[[], object]]:
    """The matrix products of that size: what every dense method needs, and none of its element-wise work."""
    a, b = (z.detach() for z in problem.features)
    gradients = [torch.empty_like(z) for z in (a, b)]
    matrix = a.new_empty(len(a), len(b))

    def two_products() -> None:
        torch.mm(a, b.t(), out=matrix)
        torch.mm(matrix, b, out=gradients[0])

    def three_products() -> None:
        two_products()
        torch.mm(matrix.t(), a, out=gradients[1])

    return {"floor: two products": two_products} if cell.memory else {"floor: three products": three_products}
