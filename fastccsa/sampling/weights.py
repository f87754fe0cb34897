"""Weights that undo the imbalance of classes and of pairs of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastccsa.system.errors import InputError

if TYPE_CHECKING:
    import torch

SUM_TOLERANCE = 1e-6


@overload
def inverse_probability(p: torch.Tensor, normalize: str | None = "mean", zero: float | str = 0.0) -> torch.Tensor: ...


@overload
def inverse_probability(
    p: ArrayLike, normalize: str | None = "mean", zero: float | str = 0.0
) -> NDArray[np.float64]: ...


def inverse_probability(p: Any, normalize: str | None = "mean", zero: float | str = 0.0) -> Any:
    """Compute the weights 1/p of a table of probabilities (Yoon et al. 2019, equations 7 and 8).

    Args:
        p: probabilities of any shape that sum to 1, for example P(y1) ``[C]`` or P(y1, y2) ``[C, C]``.
        normalize: ``"mean"`` scales the weights to an expected weight of 1 under ``p``, which keeps the scale of the
            loss; ``"max"`` divides by the largest weight, as the authors' code does; None leaves 1/p.
        zero: weight of the cells where ``p`` is 0, which are never sampled: 0.0, or ``"max"`` for the largest weight,
            as in the authors' code.

    Returns:
        Weights of the shape of ``p``. If ``p`` is a torch tensor, they are on its device and in its dtype (float32 if
        that is not floating); else they are numpy float64.

    Raises:
        InputError: ``p`` is not a table of probabilities or too small to invert, or an option is unknown.
    """
    if normalize not in ("mean", "max", None):
        raise InputError(f'normalize must be "mean", "max" or None, got {normalize!r}')
    if zero not in (0, "max"):
        raise InputError(f'zero must be 0.0 or "max", got {zero!r}')
    if not hasattr(p, "detach"):
        return _weights(np.asarray(p, dtype=np.float64), normalize, zero, np.finfo(np.float64).max)

    import torch

    dtype = p.dtype if p.is_floating_point() else torch.float32
    weights = _weights(p.detach().cpu().double().numpy(), normalize, zero, torch.finfo(dtype).max)
    return torch.from_numpy(weights).to(device=p.device, dtype=dtype)


def _weights(p: NDArray[np.float64], normalize: str | None, zero: float | str, largest: float) -> NDArray[np.float64]:
    _check_probabilities(p)
    sampled = p > 0
    weights = np.zeros_like(p)
    with np.errstate(over="ignore"):
        np.divide(1, p, out=weights, where=sampled)
    if weights.max() > largest:
        raise InputError(f"p holds {p[sampled].min()}, too small to invert; set it to 0")
    if normalize == "mean":
        weights /= sampled.sum()  # the expected weight: p * 1/p summed over the sampled cells
    elif normalize == "max":
        weights /= weights.max()
    if zero == "max":
        weights[~sampled] = weights.max()
    return weights


def _check_probabilities(p: NDArray[np.float64]) -> None:
    if not (np.isfinite(p).all() and (p >= 0).all()):
        raise InputError("p must hold probabilities: finite numbers, none negative")
    if abs(p.sum() - 1) > SUM_TOLERANCE:
        raise InputError(f"p must hold probabilities that sum to 1, but they sum to {p.sum():.8g}")
