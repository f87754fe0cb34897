"""The loss as functions: fused kernels on CPU and CUDA.

Shapes: logits [N, C], features [N, D], targets [N]. Logits and features are float64, float32, bfloat16 or float16, all
of one dtype; targets are int64. Sums are kept in float32 (float64 for float64 input), and that is the dtype of the
result too. Any strides; CPU or CUDA; results do not change from run to run.

Labels and weights are checked. On the CPU a bad one raises at once. On CUDA a check would have to wait for the GPU;
instead the kernel reads nothing out of bounds and makes that call's loss NaN, and the next call raises the error that
names the argument, the row and the value. (All pairs of more than 4,194,304 do wait, and raise at once.)

Over all pairs (``pairs="all"``) a float32 error is no larger than twice that of plain differences in float32, also for
near points far from the origin: rows are centred, and pairs that are close against their norms are computed from
differences. Many pairs are sorted by class, and what equal classes and the margin make vanish is skipped.

Weights are constants: no gradient flows to them. They may be on the tensors' device in any floating dtype.
"""

from __future__ import annotations

from torch import Tensor

from fastccsa.losses.reference import CCSATerms
from fastccsa.ops import all_pairs as _all_pairs
from fastccsa.ops import products as _products
from fastccsa.ops.all_pairs_checks import check_logits
from fastccsa.ops.library import accumulation_dtype
from fastccsa.ops.zipped import REDUCTIONS, zipped_ccsa
from fastccsa.system.errors import InputError

__all__ = [
    "CCSATerms",
    "contrastive_alignment",
    "contrastive_alignment_terms",
    "weighted_ccsa_loss",
    "weighted_ccsa_loss_terms",
    "weighted_cross_entropy",
]


def _as_weight(weight: Tensor | None, of: Tensor) -> Tensor | None:
    """`weight` in the dtype that sums over tensors like `of` are kept in."""
    if weight is None:
        return None
    dtype = accumulation_dtype(of.dtype)
    return weight if weight.dtype == dtype else weight.to(dtype)


def _check_pairs(pairs: str, reduction: str, precision: str) -> None:
    if pairs not in ("zipped", "all"):
        raise InputError(f"pairs is {pairs!r}; choose 'zipped' (row i with row i) or 'all' (every row with every row)")
    if pairs == "all" and reduction == "none":
        raise InputError(
            "reduction 'none' over all pairs would be a matrix of N1 x N2 values; choose 'mean' or 'sum', "
            "or fastccsa.reference.pair_terms(..., pairs='all') for few rows"
        )
    if precision not in _products.PRECISIONS:
        raise InputError(f"precision is {precision!r}; choose one of {', '.join(map(repr, _products.PRECISIONS))}")
    if precision != "ieee" and pairs == "zipped":
        raise InputError(f"precision {precision!r} concerns the matrix products of pairs='all'; leave it with 'zipped'")
    if reduction not in REDUCTIONS:
        raise InputError(f"reduction is {reduction!r}; choose one of {', '.join(map(repr, REDUCTIONS))}")


def _classification(
    logits1: Tensor, logits2: Tensor, target1: Tensor, target2: Tensor,
    class_weight1: Tensor | None, class_weight2: Tensor | None, reduction: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Both classification terms; the two streams may be of different lengths."""
    if logits1.shape[0] != logits2.shape[0]:
        first = weighted_cross_entropy(logits1, target1, class_weight1, reduction)
        return first, weighted_cross_entropy(logits2, target2, class_weight2, reduction)
    _, terms = zipped_ccsa(
        logits1, logits2, None, None, target1, target2,
        class_weight1=_as_weight(class_weight1, logits1), class_weight2=_as_weight(class_weight2, logits2),
        margin=0.0, alpha=0.0, reduction=reduction,
    )  # fmt: skip
    return terms[0], terms[1]


def weighted_ccsa_loss_terms(
    logits1: Tensor,
    logits2: Tensor,
    features1: Tensor,
    features2: Tensor,
    target1: Tensor,
    target2: Tensor,
    class_weight1: Tensor | None = None,
    class_weight2: Tensor | None = None,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    alpha: float = 0.5,
    pairs: str = "zipped",
    reduction: str = "mean",
    precision: str = "ieee",
) -> CCSATerms:
    """The weighted CCSA loss with its terms; each of them is differentiable.

    Args and errors: see :func:`weighted_ccsa_loss`.

    Returns:
        ``(loss, classification1, classification2, alignment, separation)``, scalars, or [N] each for ``"none"``.
    """
    _check_pairs(pairs, reduction, precision)
    if pairs == "all":
        check_logits((logits1, logits2), (features1, features2))
        _, pair_terms = _all_pairs.all_pairs(
            features1, features2, target1, target2, _as_weight(pair_weight, features1), margin, reduction,
            True, precision, logits1.shape[-1],
        )  # fmt: skip
        classification = _classification(logits1, logits2, target1, target2, class_weight1, class_weight2, reduction)
        loss = (1 - alpha) * (classification[0] + classification[1]) + alpha * (pair_terms[0] + pair_terms[1])
        return CCSATerms(loss, *classification, *pair_terms.unbind(0))
    loss, terms = zipped_ccsa(
        logits1, logits2, features1, features2, target1, target2,
        class_weight1=_as_weight(class_weight1, logits1), class_weight2=_as_weight(class_weight2, logits2),
        pair_weight=_as_weight(pair_weight, features1), margin=margin, alpha=alpha, reduction=reduction,
    )  # fmt: skip
    return CCSATerms(loss, *terms.unbind(0))


def weighted_ccsa_loss(
    logits1: Tensor,
    logits2: Tensor,
    features1: Tensor,
    features2: Tensor,
    target1: Tensor,
    target2: Tensor,
    class_weight1: Tensor | None = None,
    class_weight2: Tensor | None = None,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    alpha: float = 0.5,
    pairs: str = "zipped",
    reduction: str = "mean",
    precision: str = "ieee",
) -> Tensor:
    r"""The weighted CCSA loss of two streams (paper, equations 1, 2 and 5 to 8).

    .. math::
        L = (1 - \alpha)\,(L_{C1} + L_{C2}) + \alpha\,L_{CSA}

    Pairs of equal labels are pulled together by ``d^2``, the others pushed apart by ``max(0, margin - d)^2``, ``d`` the
    Euclidean distance of their features. At ``d = 0`` the push has no direction: its gradient there is 0.

    Args:
        logits1: [N, C], the first stream's predictions.
        logits2: [N, C], the second stream's.
        features1: [N, D], the first stream's features.
        features2: [N, D], the second stream's.
        target1: [N] int64 labels in [0, C).
        target2: [N] int64 labels in [0, C).
        class_weight1: [C], not negative, or None for weight 1.
        class_weight2: [C], not negative, or None.
        pair_weight: [C, C], not negative, rows by ``target1``, columns by ``target2``; or None.
        margin: distance beyond which pairs of different classes no longer matter, in units of the features.
        alpha: share of the pair terms; 0 leaves the weighted classifier, 1 the pair terms alone.
        pairs: ``"zipped"``: row i with row i. ``"all"``: every row of 1 with every row of 2, equations (5) and (6) as
            they are printed; then the streams may be of different lengths N1 and N2, and the mean of the pair terms is
            over N1 * N2. Memory stays O((N1 + N2) D). For more than 4,194,304 pairs (2048 x 2048) a GPU is waited for:
            their tiles depend on their labels, and what is not a class raises at once on CUDA too.
        precision: how float32 matrices are multiplied on CUDA for more than 65,536 pairs: ``"ieee"``; ``"tf32x3"``: by
            three products on tensor cores, with about the same accuracy; ``"tf32"``: by one, with errors of about 1e-3
            of the norms. It is also that of bfloat16 and float16 features, which are multiplied as float32. Neither
            float64 nor the CPU, where exact products cost nothing more, are concerned: they always give ``"ieee"``.
        reduction: ``"mean"`` divides by N, so gradients of shards average to the whole batch's; ``"sum"``; ``"none"``
            gives [N]; ``"weighted_mean"`` divides each classification term by the sum of its weights, as
            ``torch.nn.CrossEntropyLoss(weight=...)`` does. With N = 0, ``"sum"`` is 0 and ``"mean"`` NaN, as in torch.

    Raises:
        RuntimeError: shapes that disagree, a dtype that is not supported, tensors on different devices, labels outside
            [0, C), weights that are negative or of the wrong size; the message names the argument.
        InputError: an unknown ``pairs`` or ``reduction``.
    """
    _check_pairs(pairs, reduction, precision)
    if pairs == "all":
        check_logits((logits1, logits2), (features1, features2))
        pair_loss, _ = _all_pairs.all_pairs(
            features1, features2, target1, target2, _as_weight(pair_weight, features1), margin, reduction,
            False, precision, logits1.shape[-1],
        )  # fmt: skip
        classification1, classification2 = _classification(
            logits1, logits2, target1, target2, class_weight1, class_weight2, reduction
        )
        return (1 - alpha) * (classification1 + classification2) + alpha * pair_loss
    loss, _ = zipped_ccsa(
        logits1, logits2, features1, features2, target1, target2,
        class_weight1=_as_weight(class_weight1, logits1), class_weight2=_as_weight(class_weight2, logits2),
        pair_weight=_as_weight(pair_weight, features1), margin=margin, alpha=alpha, reduction=reduction,
    )  # fmt: skip
    return loss


def contrastive_alignment(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    pairs: str = "zipped",
    reduction: str = "mean",
    precision: str = "ieee",
) -> Tensor:
    """Alignment and separation alone: ``L_CSA`` of equation (8), in one fused op.

    Args:
        z1: [N, D] features of the first stream; [N1, D] for all pairs.
        z2: [N, D] features of the second; [N2, D] for all pairs.
        y1: [N] int64 labels; any integers without ``pair_weight``, else in [0, C).
        y2: [N] int64 labels.
        pair_weight: [C, C], not negative, or None.
        margin: distance beyond which pairs of different classes no longer matter.
        pairs: ``"zipped"``: row i with row i. ``"all"``: every row of z1 with every row of z2.
        reduction: ``"mean"``, ``"sum"`` or, zipped alone, ``"none"`` ([N]).
        precision: see :func:`weighted_ccsa_loss`.

    Raises:
        RuntimeError: as for :func:`weighted_ccsa_loss`.
        InputError: an unknown ``pairs`` or ``reduction``.
    """
    _check_alignment(pairs, reduction, precision)
    if pairs == "all":
        return _all_pairs.all_pairs(z1, z2, y1, y2, _as_weight(pair_weight, z1), margin, reduction, False, precision)[0]
    loss, _ = zipped_ccsa(
        None, None, z1, z2, y1, y2,
        pair_weight=_as_weight(pair_weight, z1), margin=margin, alpha=1.0, reduction=reduction,
    )  # fmt: skip
    return loss


def contrastive_alignment_terms(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    pairs: str = "zipped",
    reduction: str = "mean",
    precision: str = "ieee",
) -> tuple[Tensor, Tensor]:
    """Alignment and separation apart; each is differentiable.

    Args and errors: see :func:`contrastive_alignment`, which is their sum.
    """
    _check_alignment(pairs, reduction, precision)
    weight = _as_weight(pair_weight, z1)
    if pairs == "all":
        _, terms = _all_pairs.all_pairs(z1, z2, y1, y2, weight, margin, reduction, True, precision)
        return terms[0], terms[1]
    _, terms = zipped_ccsa(
        None, None, z1, z2, y1, y2, pair_weight=weight, margin=margin, alpha=1.0, reduction=reduction
    )
    return terms[2], terms[3]


def _check_alignment(pairs: str, reduction: str, precision: str) -> None:
    _check_pairs(pairs, reduction, precision)
    if reduction == "weighted_mean":
        raise InputError("reduction 'weighted_mean' is for classification terms; choose 'mean', 'sum' or 'none' here")


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, class_weight: Tensor | None = None, reduction: str = "mean"
) -> Tensor:
    """Cross-entropy weighted by class, ``w[y] * CE`` (equation 7), in one fused op.

    Args:
        logits: [N, C].
        target: [N] int64 labels in [0, C).
        class_weight: [C], not negative, or None.
        reduction: ``"mean"`` divides by N; ``"weighted_mean"`` by the sum of the weights, as
            ``torch.nn.functional.cross_entropy(weight=...)`` does; ``"sum"``; ``"none"`` gives [N].

    Raises:
        RuntimeError: as for :func:`weighted_ccsa_loss`.
        InputError: an unknown ``reduction``.
    """
    loss, _ = zipped_ccsa(
        logits, None, None, None, target, None,
        class_weight1=_as_weight(class_weight, logits), margin=0.0, alpha=0.0, reduction=reduction,
    )  # fmt: skip
    return loss
