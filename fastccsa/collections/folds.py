"""Stratified folds of groups, as scikit-learn's ``StratifiedGroupKFold`` makes them, in seconds for many groups."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

_RELATIVE, _ABSOLUTE = 1e-5, 1e-8  # tolerances of np.isclose, which scikit-learn compares with


def stratified_folds(by_group: IntArray, folds: int) -> IntArray:
    """Divide groups of images into folds with the same class proportions.

    The result is that of scikit-learn's ``StratifiedGroupKFold`` to the last bit, because manifests depend on it. The
    largest groups come first, and each goes into the fold for which the deviation between folds, as a mean over the
    classes, is smallest. Only the deviations of the classes that a group shows are computed anew.

    Args:
        by_group: number of images of each group and class, int64 ``[g, c]``; every class occurs.
        folds: number of folds.

    Returns:
        Fold of each group, int64 ``[g]``.
    """
    of_class = by_group.sum(axis=0).astype(np.float64)
    sizes = by_group.sum(axis=1).tolist()
    classes = len(of_class)
    # NumPy adds the numbers of a lone column in another order than those of several.
    axis = 0 if classes > 1 else 1
    counts = np.zeros((classes, folds, 1) if classes > 1 else (classes, 1, folds))
    deviations = np.zeros((folds, classes))  # the same in every row, except those of the group's classes
    candidates, rest = np.empty((folds, folds)), np.empty((folds, folds))
    diagonal = candidates.reshape(-1)[:: folds + 1]
    images = [0] * folds
    fold_of = np.empty(len(by_group), dtype=np.int64)
    shown = [np.flatnonzero(row).tolist() for row in by_group]
    for group in np.argsort(-by_group.std(axis=1), kind="mergesort").tolist():
        for label in shown[group]:
            # Along `axis`, candidate i has the shares of all folds if the group goes into fold i.
            np.divide(counts[label], of_class[label], out=candidates)
            np.divide(counts[label].ravel() + by_group[group, label], of_class[label], out=diagonal)
            # np.std does the same, but takes several times as long.
            np.subtract(candidates, np.add.reduce(candidates, axis=axis, keepdims=True) / folds, out=rest)
            np.multiply(rest, rest, out=rest)
            deviations[:, label] = np.sqrt(np.add.reduce(rest, axis=axis) / folds)
        best = _best((np.add.reduce(deviations, axis=1) / classes).tolist(), images)
        for label in shown[group]:
            deviations[:, label] = deviations[best, label]
            counts[label].reshape(-1)[best] += by_group[group, label]
        images[best] += sizes[group]
        fold_of[group] = best
    return fold_of


def _best(evaluations: list[float], images: list[int]) -> int:
    """Return the fold with the lowest value; of close ones, that with the fewest images."""
    best, lowest, fewest = 0, evaluations[0], images[0]
    for fold in range(1, len(evaluations)):
        value = evaluations[fold]
        close = abs(value - lowest) <= _ABSOLUTE + _RELATIVE * abs(lowest)
        if value < lowest or (close and images[fold] < fewest):
            best, lowest, fewest = fold, value, images[fold]
    return best
