"""Counter-based random numbers and the core of the pair sampler, which are implemented in ``csrc/sampler``."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from ctypes import POINTER, c_bool, c_char_p, c_double, c_uint32, c_uint64, c_void_p
from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastccsa.system.native import address, check, load

__all__ = ["MAX_SIZE", "PairSampler", "permute", "philox4x32", "uniforms"]

_library = load(
    __file__,
    "libsampler.so",
    {
        "fastccsa_sampler_max_size": (c_uint64, ()),
        "fastccsa_sampler_philox": (None, (c_void_p, c_void_p, c_void_p)),
        "fastccsa_sampler_uniforms": (
            c_char_p,
            (c_uint64, c_uint32, c_uint32, c_void_p, c_uint64, c_uint64, c_void_p),
        ),
        "fastccsa_sampler_permute": (c_char_p, (c_uint64, c_uint64, c_uint32, c_uint64, c_uint64, c_void_p)),
        "fastccsa_sampler_new": (
            c_char_p,
            (c_void_p, c_uint64, c_uint64, c_uint64, c_uint64, c_double, c_bool, POINTER(c_void_p)),
        ),
        "fastccsa_sampler_delete": (None, (c_void_p,)),
        "fastccsa_sampler_pairs": (
            c_char_p,
            (c_void_p, c_uint64, c_uint32, c_uint64, c_uint64, c_void_p),
        ),
        "fastccsa_sampler_counts": (None, (c_void_p, c_void_p)),
        "fastccsa_sampler_groups": (None, (c_void_p, c_void_p)),
        "fastccsa_sampler_nbytes": (c_uint64, (c_void_p,)),
    },
)
_uniforms = _library.fastccsa_sampler_uniforms
_permute = _library.fastccsa_sampler_permute
_pairs = _library.fastccsa_sampler_pairs

MAX_SIZE: int = _library.fastccsa_sampler_max_size()
MAX_WORDS = 2**17  # sampler::kMaxWords
PERMUTATION_STREAM = 0xFFFF  # sampler::kPermutationStream
OUT_OF_RANGE = "seed must be 0 to 2**64 - 1, and epoch 0 to 2**32 - 1"


def philox4x32(counter: Sequence[int], key: Sequence[int]) -> list[int]:
    """Return one block of Philox4x32-10: four 32-bit words from a counter (4 words) and a key (2 words)."""
    words = np.empty(4, np.uint32)
    counters, keys = np.array(counter, np.uint32), np.array(key, np.uint32)
    if counters.shape != (4,) or keys.shape != (2,):
        raise ValueError("counter must have 4 words and key 2")
    _library.fastccsa_sampler_philox(address(counters), address(keys), address(words))
    return words.tolist()


def uniforms(seed: int, stream: int, epoch: int, positions: ArrayLike, count: int) -> NDArray[np.float64]:
    """Return uniform numbers in [0, 1), float64 ``[len(positions), count]``, a pure function of the arguments.

    Each row depends only on (seed, stream, epoch, its position), and a larger count only adds columns.

    Args:
        seed: 0 to 2^64 - 1.
        stream: the purpose: 0 for pairs, 1 and 2 for the augmentation of first and second images, 3 for balanced
            draws; below 65535.
        epoch: 0 to 2^32 - 1.
        positions: int64 ``[n]``.
        count: numbers per position, at most 131072.

    Raises:
        ValueError: an argument out of range, or positions that are not one-dimensional.
    """
    positions = np.asarray(positions, np.int64, "C")
    if positions.ndim != 1:
        raise ValueError("positions must be one-dimensional")
    rows = len(positions)
    count, stream = index(count), index(stream)
    if not 0 <= count <= MAX_WORDS:
        raise ValueError(f"count must be 0 to {MAX_WORDS}, got {count}")
    if not 0 <= stream < PERMUTATION_STREAM:
        raise ValueError(f"stream must be 0 to {PERMUTATION_STREAM - 1}, got {stream}")
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**32):
        raise ValueError(OUT_OF_RANGE)
    result = np.empty((rows, count))
    check(_uniforms(index(seed), stream, index(epoch), address(positions), rows, count, address(result)))
    return result


def permute(size: int, seed: int, epoch: int, begin: int, end: int) -> NDArray[np.int64]:
    """Return elements ``[begin, end)`` of the epoch's permutation of ``0..size-1``, int64.

    Raises:
        ValueError: an argument out of range.
    """
    _check_span(size, seed, epoch, begin, end)
    result = np.empty(end - begin, np.int64)
    check(_permute(size, seed, epoch, begin, end, address(result)))
    return result


class PairSampler:
    """The core of `fastccsa.sampling.PairSampler`, which validates the arguments.

    Args:
        group_of: ``domain * classes + class`` of each image, ``[n]``.
        domains: number of domains.
        classes: number of classes.
        primary: the primary domain.
        match_probability: probability that the second image is drawn to have the first one's class.
        different: whether the other second images are of another class, or of any class.

    Raises:
        ValueError: a group or a domain out of range.
    """

    def __init__(
        self,
        group_of: ArrayLike,
        domains: int,
        classes: int,
        primary: int,
        match_probability: float,
        different: bool,
    ) -> None:
        groups = np.asarray(group_of, np.uint32, "C")
        if groups.ndim != 1:
            raise ValueError("group_of must be one-dimensional")
        self._size = len(groups)
        self._arguments = (int(domains), int(classes), int(primary), float(match_probability), bool(different))
        if min(self._arguments[:3]) < 0 or self._arguments[0] * self._arguments[1] > 2**32:
            raise ValueError("primary must be one of the domains, and domains * classes at most 2**32")
        handle = c_void_p()
        check(_library.fastccsa_sampler_new(address(groups), len(groups), *self._arguments, ctypes.byref(handle)))
        self._handle = handle.value
        weakref.finalize(self, _library.fastccsa_sampler_delete, handle)

    def pairs(self, seed: int, epoch: int, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs at positions ``[begin, end)`` of an epoch: two int64 arrays of image indices.

        Raises:
            ValueError: an argument out of range.
        """
        _check_span(self._size, seed, epoch, begin, end)
        pairs = np.empty((2, end - begin), np.int64)
        check(_pairs(self._handle, seed, epoch, begin, end, address(pairs)))
        first, second = pairs
        return first, second

    def counts(self) -> NDArray[np.int64]:
        """Return the number of images of each domain and class, int64 ``[domains, classes]``."""
        counts = np.empty(self._arguments[:2], np.int64)
        _library.fastccsa_sampler_counts(self._handle, address(counts))
        return counts

    @property
    def nbytes(self) -> int:
        """The number of bytes that the sampler keeps for all images."""
        return _library.fastccsa_sampler_nbytes(self._handle)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by the arguments; they contain no address."""
        group_of = np.empty(self._size, np.uint32)
        _library.fastccsa_sampler_groups(self._handle, address(group_of))
        return PairSampler, (group_of, *self._arguments)


def _check_span(size: int, seed: int, epoch: int, begin: int, end: int) -> None:
    """Check the range of what ctypes would cut to the width of the C type."""
    if not 0 <= begin <= end <= size:
        raise ValueError(f"positions [{begin}, {end}) must lie in the epoch of {size}")
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**32):
        raise ValueError(OUT_OF_RANGE)
    if size > MAX_SIZE:
        raise ValueError(f"size must be at most {MAX_SIZE}")
