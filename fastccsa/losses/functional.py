"""The weighted CCSA loss and its parts as functions, computed by fused kernels on the CPU and on CUDA.

The loss compares the two streams of a batch: the logits and features of two sets of images, from different domains
(Yoon, Hamarneh and Garbi, MICCAI 2019; equation numbers below refer to that paper). It combines a weighted
cross-entropy of both streams and a contrastive semantic alignment between them, which pulls pairs of one class together
and pushes pairs of different classes apart up to a margin:

```python
loss = weighted_ccsa_loss(logits1, logits2, features1, features2, target1, target2, margin=50.0, alpha=0.5)
```

:func:`weighted_ccsa_loss_terms` also returns the terms that make up the loss; :func:`contrastive_alignment` and
:func:`weighted_cross_entropy` are its two halves. :mod:`fastccsa.reference` defines the same functions in plain
PyTorch, and :class:`fastccsa.WeightedCCSALoss` is a module that stores the weights and options.

**Shapes and dtypes.** Logits are [N, C], features [N, D], targets [N] int64 (or uint8, as for
``torch.nn.functional.cross_entropy``). Logits and features are float64, float32, bfloat16 or float16. The dtype of
logits may differ from that of features, and under `torch.autocast` those of the streams too; they are promoted. Tensors
may have any strides and live on the CPU or on CUDA, and meta tensors give shapes. Sums are accumulated in float32
(float64 for float64 inputs), which is also the dtype of the result. Results are bitwise reproducible from run to run.

**Weights, margin and alpha** are constants: no gradient flows to them. Weights may be tensors, lists or arrays of any
real dtype.

**Pairs.** ``pairs="zipped"`` pairs row i of one stream with row i of the other. ``pairs="all"`` pairs every row with
every row, without building the N1 x N2 matrix: memory is O((N1 + N2) D). In float32 the error is at most twice the
error of computing every difference of two rows, even for close points far from the origin, unless you choose another
``precision``: rows are centred, and pairs that are close relative to their norms are computed from their difference. On
CUDA, bfloat16 and float16 features go to the tensor cores as they are.

**Transforms** of torch.func (vmap, grad, jvp) and derivatives of second order or in forward mode raise an error that
names :mod:`fastccsa.reference`, which supports them.

**Errors.** On the CPU, a label outside its range, or a weight of the batch that is negative or not finite, raises an
error at once. On CUDA that check would have to wait for the GPU. Instead the kernels read nothing out of bounds and
make that call's loss NaN, and the next call raises an error that names the argument, the row and the value. (With
``pairs="all"`` that call itself may raise it, if its first kernel has ended before its second one starts.) No call
waits for the GPU, whatever its size, so a CUDA graph can capture each of them.
"""

from __future__ import annotations

from torch import Tensor

from fastccsa.losses.terms import CCSATerms, total_loss
from fastccsa.losses.validate import (
    as_labels,
    check_logits,
    check_options,
    checked_margin_and_alpha,
    in_one_dtype,
)
from fastccsa.ops.all_pairs import all_pairs
from fastccsa.ops.choices import Pairs, Precision, Reduction
from fastccsa.ops.library import in_accumulation_dtype
from fastccsa.ops.zipped import zipped_ccsa

__all__ = [
    "CCSATerms",
    "contrastive_alignment",
    "contrastive_alignment_terms",
    "weighted_ccsa_loss",
    "weighted_ccsa_loss_terms",
    "weighted_cross_entropy",
]


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
    pairs: Pairs = "zipped",
    reduction: Reduction = "mean",
    precision: Precision = "ieee",
) -> Tensor:
    r"""Compute the weighted CCSA loss of two streams (paper, equations 1, 2 and 5 to 8).

    .. math::
        L = (1 - \alpha)\,(L_{C1} + L_{C2}) + \alpha\,L_{CSA}

    Pairs of equal labels are pulled together by ``d^2``, the others pushed apart by ``max(0, margin - d)^2``, where
    ``d`` is the Euclidean distance of their features. At ``d = 0`` the push has no direction: its gradient there is 0.

    Args:
        logits1: [N, C], the first stream's predictions.
        logits2: [N, C], the second stream's predictions.
        features1: [N, D], the first stream's features.
        features2: [N, D], the second stream's features.
        target1: [N] int64 labels in [0, C).
        target2: [N] int64 labels in [0, C).
        class_weight1: [C] weights of the first stream's classes, 0 or more; None is 1 for each.
        class_weight2: [C] weights of the second stream's classes, as for the first.
        pair_weight: [C, C] weights of pairs of classes, 0 or more, rows by ``target1`` and columns by ``target2``;
            None is 1 for each.
        margin: distance beyond which pairs of different classes no longer matter, in units of the features.
        alpha: share of the pair terms: 0 leaves only the weighted classification, 1 only the pair terms.
        pairs: ``"zipped"``: row i with row i. ``"all"``: every row of the first stream with every row of the second,
            as in the paper's equations (5) and (6). The streams may then have different lengths N1 and N2, and the mean
            of the pair terms is over N1 * N2.
        reduction: ``"mean"`` divides by N, so that the gradients of shards average to those of the whole batch.
            ``"sum"`` adds up. ``"none"`` returns [N]; only for zipped pairs. ``"weighted_mean"`` divides each
            classification term by the sum of its weights, as ``torch.nn.CrossEntropyLoss(weight=...)`` does, and the
            pair terms by the number of pairs. For an empty batch, ``"sum"`` is 0 and ``"mean"`` NaN, as in torch.
        precision: how tensor cores multiply float32 features, with ``pairs="all"`` on CUDA and more than 65,536 pairs.
            ``"ieee"`` is a promise: errors are at most twice those of differences in float32. ``"bf16x3"`` keeps about
            16 bits of the features and of the coefficients, ``"tf32"`` 11, and fewer of values that are 2^28 times
            smaller than the largest. Features of other types, and all features on the CPU, have one precision, whatever
            the choice: bfloat16 and float16 go to the tensor cores as they are.

    Returns:
        The loss: a scalar, or [N] with ``reduction="none"``; float32, or float64 for float64 inputs.

    Raises:
        RuntimeError: shapes that disagree, an unsupported dtype, tensors on different devices, a label outside
            [0, C), a transform of torch.func; the message names the argument.
        InputError: an unknown ``pairs``, ``reduction`` or ``precision``, or values that cannot be combined; a weight
            that is negative or not finite, a margin that is, or ``alpha`` outside [0, 1].
    """
    loss, _ = _weighted_ccsa(
        logits1, logits2, features1, features2, target1, target2, class_weight1, class_weight2, pair_weight,
        margin=margin, alpha=alpha, pairs=pairs, reduction=reduction, precision=precision, per_term=False,
    )  # fmt: skip
    return loss


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
    pairs: Pairs = "zipped",
    reduction: Reduction = "mean",
    precision: Precision = "ieee",
    term_gradients: bool = True,
) -> CCSATerms:
    """Compute the weighted CCSA loss and the four terms it is composed of; each of the five is differentiable.

    Args:
        term_gradients: False leaves alignment and separation over all pairs without gradients, which suits terms that
            are only logged: the loss's gradients then take half the memory. It has no effect on zipped pairs.

    Other args, and errors: as for :func:`weighted_ccsa_loss`.

    Returns:
        ``(loss, classification1, classification2, alignment, separation)``: scalars, or [N] each with
        ``reduction="none"``.
    """
    loss, terms = _weighted_ccsa(
        logits1, logits2, features1, features2, target1, target2, class_weight1, class_weight2, pair_weight,
        margin=margin, alpha=alpha, pairs=pairs, reduction=reduction, precision=precision, per_term=term_gradients,
        with_terms=True,
    )  # fmt: skip
    return CCSATerms(loss, *terms)


def contrastive_alignment(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    pairs: Pairs = "zipped",
    reduction: Reduction = "mean",
    precision: Precision = "ieee",
) -> Tensor:
    """Compute only the pair terms: ``L_CSA`` of equation (8), alignment plus separation.

    Args:
        z1: [N, D] features of the first stream; [N1, D] for all pairs.
        z2: [N, D] features of the second; [N2, D] for all pairs.
        y1: [N] int64 labels, [N1] for all pairs; any integers without ``pair_weight``, else in [0, C).
        y2: [N] int64 labels; [N2] for all pairs.
        pair_weight: [C, C] weights, 0 or more, rows by ``y1`` and columns by ``y2``; None is 1 for each.
        margin: distance beyond which pairs of different classes no longer matter, in units of the features.
        pairs: ``"zipped"``: row i with row i. ``"all"``: every row of ``z1`` with every row of ``z2``.
        reduction: ``"mean"``, ``"sum"`` or, for zipped pairs, ``"none"``.
        precision: see :func:`weighted_ccsa_loss`.

    Returns:
        A scalar, or [N] with ``reduction="none"``; float32, or float64 for float64 features.

    Raises:
        RuntimeError: as for :func:`weighted_ccsa_loss`.
        InputError: as for :func:`weighted_ccsa_loss`.
    """
    loss, _ = _contrastive_alignment(
        z1, z2, y1, y2, pair_weight,
        margin=margin, pairs=pairs, reduction=reduction, precision=precision, per_term=False,
    )  # fmt: skip
    return loss


def contrastive_alignment_terms(
    z1: Tensor,
    z2: Tensor,
    y1: Tensor,
    y2: Tensor,
    pair_weight: Tensor | None = None,
    margin: float = 50.0,
    pairs: Pairs = "zipped",
    reduction: Reduction = "mean",
    precision: Precision = "ieee",
) -> tuple[Tensor, Tensor]:
    """Compute alignment (equation 5) and separation (equation 6), weighted as in equation (8).

    Both are differentiable; :func:`contrastive_alignment` returns their sum. Args and errors are the same.

    Returns:
        ``(alignment, separation)``: scalars, or [N] each with ``reduction="none"``.
    """
    _, terms = _contrastive_alignment(
        z1, z2, y1, y2, pair_weight,
        margin=margin, pairs=pairs, reduction=reduction, precision=precision, per_term=True,
    )  # fmt: skip
    return terms[-2], terms[-1]


def weighted_cross_entropy(
    logits: Tensor, target: Tensor, class_weight: Tensor | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """Compute the cross-entropy of one stream, weighted by class: ``w[y] * CE`` (equation 7).

    Args:
        logits: [N, C].
        target: [N] int64 labels in [0, C).
        class_weight: [C] weights, 0 or more; None is 1 for each.
        reduction: ``"mean"`` divides by N; ``"weighted_mean"`` by the sum of the weights, as
            ``torch.nn.functional.cross_entropy(weight=...)`` does; ``"sum"`` adds up; ``"none"`` returns [N].

    Returns:
        A scalar, or [N] with ``reduction="none"``; float32, or float64 for float64 logits.

    Raises:
        RuntimeError: as for :func:`weighted_ccsa_loss`.
        InputError: an unknown ``reduction``, or a weight that is negative or not finite.
    """
    loss, _ = zipped_ccsa(
        logits, None, None, None, as_labels("target1", target), None,
        class_weight1=in_accumulation_dtype("class_weight1", class_weight, logits),
        margin=0.0, alpha=0.0, reduction=reduction,
    )  # fmt: skip
    return loss


# The time of a small batch is mostly Python's, so as little code as possible runs before the zipped op.


def _weighted_ccsa(
    logits1: Tensor, logits2: Tensor, features1: Tensor, features2: Tensor, target1: Tensor, target2: Tensor,
    class_weight1: Tensor | None, class_weight2: Tensor | None, pair_weight: Tensor | None, *,
    margin: float, alpha: float, pairs: Pairs, reduction: Reduction, precision: Precision, per_term: bool,
    with_terms: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]]:  # fmt: skip
    """Compute the loss and, only if `with_terms`, its four terms.

    Over all pairs, alignment and separation can be differentiated only if `per_term`, which costs a second set of
    gradients.
    """
    check_options(pairs, reduction, precision)
    margin, alpha = checked_margin_and_alpha(margin, alpha)
    target1, target2 = as_labels("target1", target1), as_labels("target2", target2)
    if pairs == "zipped":
        if logits1.dtype is not features1.dtype:
            logits1, logits2, features1, features2 = in_one_dtype(logits1, logits2, features1, features2)
        class_weight1 = in_accumulation_dtype("class_weight1", class_weight1, logits1)
        class_weight2 = in_accumulation_dtype("class_weight2", class_weight2, logits2)
        pair_weight = in_accumulation_dtype("pair_weight", pair_weight, features1)
        loss, terms = zipped_ccsa(
            logits1, logits2, features1, features2, target1, target2,
            class_weight1=class_weight1, class_weight2=class_weight2, pair_weight=pair_weight,
            margin=margin, alpha=alpha, reduction=reduction,
        )  # fmt: skip
        return loss, terms.unbind(0) if with_terms else ()
    check_logits((logits1, logits2), (features1, features2))
    pair_loss, pair_terms = all_pairs(
        features1, features2, target1, target2, in_accumulation_dtype("pair_weight", pair_weight, features1),
        margin=margin, reduction=reduction, per_term=per_term, precision=precision, labels=logits1.shape[-1],
    )  # fmt: skip
    classification = _classification(logits1, logits2, target1, target2, class_weight1, class_weight2, reduction)
    loss = total_loss(*classification, pair_loss, alpha)
    return loss, (*classification, *pair_terms.unbind(0)) if with_terms else ()


def _classification(
    logits1: Tensor, logits2: Tensor, target1: Tensor, target2: Tensor,
    class_weight1: Tensor | None, class_weight2: Tensor | None, reduction: Reduction,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute both classification terms; the two streams may have different lengths."""
    if logits1.shape[0] != logits2.shape[0]:
        first = weighted_cross_entropy(logits1, target1, class_weight1, reduction)
        return first, weighted_cross_entropy(logits2, target2, class_weight2, reduction)
    _, terms = zipped_ccsa(
        logits1, logits2, None, None, target1, target2,
        class_weight1=in_accumulation_dtype("class_weight1", class_weight1, logits1),
        class_weight2=in_accumulation_dtype("class_weight2", class_weight2, logits2),
        margin=0.0, alpha=0.0, reduction=reduction,
    )  # fmt: skip
    return terms[0], terms[1]


def _contrastive_alignment(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, pair_weight: Tensor | None, *,
    margin: float, pairs: Pairs, reduction: Reduction, precision: Precision, per_term: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Compute the pair loss and, in the last two rows of a tensor, alignment and separation.

    Over all pairs, the two terms have gradients only with `per_term`.
    """
    check_options(pairs, reduction, precision, classification=False)
    margin, _ = checked_margin_and_alpha(margin, 0.0)
    y1, y2 = as_labels("target1", y1), as_labels("target2", y2)
    pair_weight = in_accumulation_dtype("pair_weight", pair_weight, z1)
    if pairs == "all":
        return all_pairs(
            z1, z2, y1, y2, pair_weight, margin=margin, reduction=reduction, per_term=per_term, precision=precision
        )
    return zipped_ccsa(
        None, None, z1, z2, y1, y2, pair_weight=pair_weight, margin=margin, alpha=1.0, reduction=reduction
    )
