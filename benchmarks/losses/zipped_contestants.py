"""The contestants of the zipped loss: fastccsa, and ways to compute the same loss without it.

Every loss function takes ``(logits1, logits2, features1, features2, target1, target2, class_weight1, class_weight2,
pair_weight, margin, alpha)`` and returns the mean loss.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from benchmarks.harness.benchmark import CannotRun
from benchmarks.harness.memory import cpu_cache
from benchmarks.harness.results import OURS
from benchmarks.harness.turns import Calls, interleave
from benchmarks.losses.common import (
    Contestant,
    Loss,
    LossFunction,
    Problem,
    call_of,
    compiled,
    plain,
    squared_contrastive_loss,
    sums,
)  # fmt: skip
from fastccsa import functional, reference

POOL_BYTES = 1 << 34
TRIAL_PAIRS, TRIAL_ROUNDS = 16384, 3
COMPILED = "vector_norm"  # the formulation that is compiled

Distance = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def rows_of(arguments: tuple[Any, ...], which: slice | Tensor, dtype: torch.dtype | None = None) -> tuple[Any, ...]:
    """Return the arguments for some pairs, in another dtype if given; inputs are leaves that require a gradient."""
    inputs = (x.detach()[which].to(dtype).requires_grad_() for x in arguments[:4])
    weights = (w if w is None or dtype is None else w.to(dtype) for w in arguments[6:9])
    return (*inputs, *(y[which] for y in arguments[4:6]), *weights, *arguments[9:])


# ---- eager PyTorch, as a careful user writes it ----


def _composed(pairs_of: Callable[..., Tensor]) -> Loss:
    """Compose the loss from two cross-entropies and the sum of a pair term."""

    def classification(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
        return cross_entropy(logits.to(sums(logits)), target, weight, reduction="sum")

    def loss(
        logits1: Tensor, logits2: Tensor, features1: Tensor, features2: Tensor, target1: Tensor, target2: Tensor,
        class_weight1: Tensor | None, class_weight2: Tensor | None, pair_weight: Tensor | None,
        margin: float, alpha: float,
    ) -> Tensor:  # fmt: skip
        both = classification(logits1, target1, class_weight1) + classification(logits2, target2, class_weight2)
        pairs = pairs_of(features1, features2, target1, target2, pair_weight, margin)
        return ((1 - alpha) * both + alpha * pairs) / target1.shape[0]

    return loss


def _eager_with(distance_of: Distance) -> Loss:
    def pairs(a: Tensor, b: Tensor, target1: Tensor, target2: Tensor, weight: Tensor | None, margin: float) -> Tensor:
        distance, squared = distance_of(a, b)
        pair = torch.where(target1 == target2, squared, (margin - distance).clamp(min=0).square())
        return (pair if weight is None else weight[target1, target2] * pair).sum()

    return _composed(pairs)


def _by_norm(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    # The norm's gradient at 0 is 0 in torch. Sums of half precision are kept in float32.
    distance = torch.linalg.vector_norm(a - b, dim=1, dtype=sums(a))
    return distance, distance.square()


def _by(squares: Callable[[Tensor, Tensor], Tensor]) -> Distance:
    def distance(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        squared = squares(a, b).sum(1, dtype=sums(a))
        return squared.clamp(min=torch.finfo(squared.dtype).tiny).sqrt(), squared

    return distance


FORMULATIONS = {
    "vector_norm": _eager_with(_by_norm),
    "squares": _eager_with(_by(lambda a, b: (a - b).square())),
    "mse_loss": _eager_with(_by(partial(mse_loss, reduction="none"))),
}


def _eager(problem: Problem, cell: Any) -> LossFunction:
    """Return the formulation that is fastest in this cell, which depends on sizes, dtype and device."""
    arguments = rows_of(problem.arguments, slice(TRIAL_PAIRS))
    trial = Problem(arguments[:4], arguments, lambda: problem.expected)
    calls = [call_of(formulation, trial, cell) for formulation in FORMULATIONS.values()]
    for call in calls:
        call()
    synchronize = torch.cuda.synchronize if arguments[0].is_cuda else lambda: None
    times = interleave([Calls(call, synchronize) for call in calls], TRIAL_ROUNDS, 0.0)
    fastest = min(zip(times, FORMULATIONS, strict=True), key=lambda pair: statistics.median(pair[0]))[1]
    return LossFunction(FORMULATIONS[fastest], f"distance by {fastest}, the fastest of {', '.join(FORMULATIONS)}")


# ---- others ----


def _with_pool(problem: Problem, cell: Any) -> LossFunction:
    if problem.inputs[0].is_cuda:
        raise CannotRun("the pool of recycled memory is the CPU's")
    note = "gradients in recycled memory: fastccsa.set_cpu_cache_limit"
    return LossFunction(functional.weighted_ccsa_loss, note, around=partial(cpu_cache, POOL_BYTES))


def _captured(problem: Problem, cell: Any) -> LossFunction:
    if not problem.inputs[0].is_cuda:
        raise CannotRun("CUDA graphs need a GPU")
    note = "the whole call is one CUDA graph: the time of the GPU alone"
    return LossFunction(functional.weighted_ccsa_loss, note, captured=True)


def _compiled_for_small_graphs(problem: Problem, cell: Any) -> LossFunction:
    if problem.inputs[0].is_cuda:
        note = 'mode="reduce-overhead": CUDA graphs, whose memory is their own and not measured'
        return compiled(FORMULATIONS[COMPILED], note, mode="reduce-overhead")(problem, cell)
    # On a CPU that mode equals the default one; there this option reduces Python's overhead.
    note = "cpp_wrapper=True: torch's option against overhead on a CPU"
    return compiled(FORMULATIONS[COMPILED], note, options={"cpp_wrapper": True})(problem, cell)


def _metric_learning(problem: Problem, cell: Any) -> LossFunction:
    if cell.weighted:
        raise CannotRun("cannot express: its contrastive loss has no weights per pair")
    squared_contrastive_loss(0.0)  # raises if the package is missing

    def pairs(a: Tensor, b: Tensor, target1: Tensor, target2: Tensor, weight: Tensor | None, margin: float) -> Tensor:
        same = (target1 == target2).nonzero().squeeze(1)
        different = (target1 != target2).nonzero().squeeze(1)
        loss: Tensor = squared_contrastive_loss(margin)(a, None, (same, same, different, different), b, None)
        return loss

    return LossFunction(_composed(pairs), "ContrastiveLoss, its two terms squared, and torch's cross_entropy")


# ---- all contestants, and estimates of the memory that they hold ----


def _copies(count: float) -> Callable[[Any], float]:
    """Estimate ``count`` copies of both features and both logits in float32 or wider."""
    return lambda cell: count * 2 * cell.pairs * (cell.width + cell.classes) * (8 if cell.dtype == "float64" else 4)


def _matrix(cell: Any) -> float:
    return 16.0 * cell.pairs**2 + _copies(3)(cell)  # distances, their gradient, and workspace


CONTESTANTS = (
    Contestant("fastccsa", plain(functional.weighted_ccsa_loss), lambda cell: 1.1 * cell.gradient_bytes, kind=OURS),
    Contestant("fastccsa, pool", _with_pool, lambda cell: 2.2 * cell.gradient_bytes),
    Contestant("fastccsa, CUDA graph", _captured, lambda cell: 2.2 * cell.gradient_bytes),
    Contestant("eager PyTorch", _eager, _copies(2.2)),
    Contestant("fastccsa.reference", plain(reference.weighted_ccsa_loss, "eager"), _copies(2.2)),
    Contestant("torch.compile", compiled(FORMULATIONS[COMPILED], "default mode"), _copies(2.2), compiled=True),
    Contestant("torch.compile, small graphs", _compiled_for_small_graphs, _copies(2.2), compiled=True),
    Contestant("pytorch-metric-learning", _metric_learning, _matrix),
)
