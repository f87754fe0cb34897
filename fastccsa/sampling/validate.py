"""Checks of the samplers' arguments; each raises `InputError` with one sentence about what to change."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastccsa.system.errors import InputError


def check_integer(name: str, value: Any, low: int, high: int) -> int:
    """Return ``value`` as an int in ``low..high``."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, bool) or not low <= number <= high:
        raise InputError(f"{name} must be an integer from {low} to {high}, got {value!r}")
    return number


def check_probability(name: str, value: Any) -> float:
    """Return ``value`` as a float in [0, 1]."""
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise InputError(f"{name} must be a number from 0 to 1, got {value!r}")
    return float(value)


def check_indices(name: str, values: Any, count: int) -> NDArray[np.integer]:
    """Return a list, array or tensor of integers in ``0..count-1`` as a one-dimensional numpy array."""
    if hasattr(values, "detach"):  # a torch tensor, on any device
        values = values.detach().cpu()
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name} must hold one integer per image, got an array of shape {array.shape}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} must be integers, got dtype {array.dtype}")
    if array.min() < 0 or array.max() >= count:
        row = int(np.flatnonzero((array < 0) | (array >= count))[0])
        raise InputError(f"{name}[{row}] is {array[row]}, outside 0..{count - 1}")
    return array
