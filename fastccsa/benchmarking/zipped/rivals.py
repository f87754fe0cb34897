"""Who is measured: fastccsa, and the ways to compute the same loss without it.

Every loss function takes ``(logits1, logits2, features1, features2, target1, target2, class_weight1, class_weight2,
pair_weight, margin, alpha)`` and returns the mean loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from fastccsa import functional, reference
from fastccsa.benchmarking.contestants import CannotExpress, LossFunction, Rival
from fastccsa.benchmarking.metric_learning import squared_contrastive_loss
from fastccsa.benchmarking.timing import interleaved
from fastccsa.benchmarking.zipped.cells import BACKWARD, Cell
from fastccsa.benchmarking.zipped.problem import MARGIN, Problem

__all__ = ["OURS", "RIVALS", "CannotExpress", "LossFunction", "Rival", "call_of"]

Loss = Callable[..., Tensor]


# ---- eager PyTorch, as a careful user writes it ----


def _distance_by_norm(features1: Tensor, features2: Tensor) -> tuple[Tensor, Tensor]:
    # The norm's gradient at 0 is 0 in torch. Sums of half precision are kept in float32.
    distance = torch.linalg.vector_norm(features1 - features2, dim=1, dtype=_sums(features1))
    return distance, distance.square()


def _distance_by_squares(features1: Tensor, features2: Tensor) -> tuple[Tensor, Tensor]:
    squared = (features1 - features2).square().sum(1, dtype=_sums(features1))
    return squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt(), squared


def _distance_by_mse(features1: Tensor, features2: Tensor) -> tuple[Tensor, Tensor]:
    squared = mse_loss(features1, features2, reduction="none").sum(1, dtype=_sums(features1))
    return squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt(), squared


def _sums(of: Tensor) -> torch.dtype:
    return torch.float64 if of.dtype == torch.float64 else torch.float32


def _classification(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    return cross_entropy(logits.to(_sums(logits)), target, weight, reduction="sum")


def _eager_with(distance_of: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Loss:
    def eager(
        logits1: Tensor, logits2: Tensor, features1: Tensor, features2: Tensor, target1: Tensor, target2: Tensor,
        class_weight1: Tensor | None, class_weight2: Tensor | None, pair_weight: Tensor | None,
        margin: float, alpha: float,
    ) -> Tensor:  # fmt: skip
        classification = _classification(logits1, target1, class_weight1)
        classification = classification + _classification(logits2, target2, class_weight2)
        distance, squared = distance_of(features1, features2)
        pair = torch.where(target1 == target2, squared, (margin - distance).clamp(min=0).square())
        if pair_weight is not None:
            pair = pair_weight[target1, target2] * pair
        return ((1 - alpha) * classification + alpha * pair.sum()) / target1.shape[0]

    return eager


FORMULATIONS = {
    "vector_norm": _eager_with(_distance_by_norm),
    "squares": _eager_with(_distance_by_squares),
    "mse_loss": _eager_with(_distance_by_mse),
}
TRIAL_PAIRS, TRIAL_ROUNDS = 16384, 3


def _eager(problem: Problem, cell: Cell) -> LossFunction:
    """The formulation that is fastest in this cell: which one it is depends on sizes, dtype and device."""
    trial = problem.rows(slice(TRIAL_PAIRS))
    calls = {name: call_of(formulation, trial, cell) for name, formulation in FORMULATIONS.items()}
    for call in calls.values():
        call()
    wait = torch.cuda.synchronize if problem.targets[0].is_cuda else lambda: None
    times = interleaved(calls, TRIAL_ROUNDS, 0.0, wait)
    fastest = min(times, key=lambda name: sorted(times[name].seconds)[len(times[name].seconds) // 2])
    return LossFunction(FORMULATIONS[fastest], f"distance by {fastest}, the fastest of {', '.join(FORMULATIONS)}")


# ---- torch.compile ----

COMPILED = FORMULATIONS["vector_norm"]


def _compiled(note: str, keeps_memory: bool = False, **options: Any) -> LossFunction:
    # Sizes are fixed; where several N share a graph, the tensors themselves say so.
    return LossFunction(torch.compile(COMPILED, fullgraph=True, dynamic=False, **options), note, keeps_memory)


def _compiled_by_default(problem: Problem, cell: Cell) -> LossFunction:
    return _compiled("default mode")


def _compiled_for_small_graphs(problem: Problem, cell: Cell) -> LossFunction:
    if problem.targets[0].is_cuda:
        note = 'mode="reduce-overhead": CUDA graphs, whose memory is their own and not measured'
        return _compiled(note, keeps_memory=True, mode="reduce-overhead")
    # On a CPU that mode is the default one; this option is what torch has against Python's share there.
    return _compiled("cpp_wrapper=True: what torch has against overhead on a CPU", options={"cpp_wrapper": True})


# ---- pytorch-metric-learning ----


def _metric_learning(problem: Problem, cell: Cell) -> LossFunction:
    if cell.weighted:
        raise CannotExpress("cannot express: its contrastive loss has no weights per pair")
    losses = {MARGIN: squared_contrastive_loss(MARGIN)}

    def metric_learning(
        logits1: Tensor, logits2: Tensor, features1: Tensor, features2: Tensor, target1: Tensor, target2: Tensor,
        class_weight1: Tensor | None, class_weight2: Tensor | None, pair_weight: Tensor | None,
        margin: float, alpha: float,
    ) -> Tensor:  # fmt: skip
        if margin not in losses:
            losses[margin] = squared_contrastive_loss(margin)
        same = (target1 == target2).nonzero().squeeze(1)
        different = (target1 != target2).nonzero().squeeze(1)
        pairs = losses[margin](features1, None, (same, same, different, different), features2, None)
        classification = _classification(logits1, target1, None) + _classification(logits2, target2, None)
        return ((1 - alpha) * classification + alpha * pairs) / target1.shape[0]

    return LossFunction(metric_learning, "ContrastiveLoss, its two terms squared, and torch's cross_entropy")


# ---- all of them ----


def _copies(count: float) -> Callable[[Cell], float]:
    """`count` copies of both features and both logits in float32 or wider."""
    return lambda cell: count * 2 * cell.pairs * (cell.width + cell.classes) * (8 if cell.dtype == "float64" else 4)


def _matrix(cell: Cell) -> float:
    return 16.0 * cell.pairs**2 + _copies(3)(cell)  # distances, their gradient, and workspace


OURS = Rival(
    "fastccsa",
    lambda problem, cell: LossFunction(functional.weighted_ccsa_loss),
    lambda cell: 1.1 * cell.gradient_bytes,
)
RIVALS = (
    OURS,
    Rival("eager PyTorch", _eager, _copies(2.2)),
    Rival(
        "fastccsa.losses.reference",
        lambda problem, cell: LossFunction(reference.weighted_ccsa_loss, "eager"),
        _copies(2.2),
    ),
    Rival("torch.compile", _compiled_by_default, _copies(2.2), compiled=True),
    Rival("torch.compile, small graphs", _compiled_for_small_graphs, _copies(2.2), compiled=True),
    Rival("pytorch-metric-learning", _metric_learning, _matrix),
)


def call_of(loss: Loss, problem: Problem, cell: Cell) -> Callable[[], object]:
    """One call as it is timed. Forward alone is to be called without gradients enabled."""
    arguments, inputs = problem.arguments, problem.inputs
    if cell.mode == BACKWARD:
        return lambda: torch.autograd.grad(loss(*arguments), inputs)
    return lambda: loss(*arguments)
