"""Pairs of hashes that differ in few bits, without comparing all with all."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_CHUNK = 1 << 20  # candidates compared at a time

Bits = npt.NDArray[np.uint8]
Keys = npt.NDArray[np.int64]


def near_pairs(bits: Bits, limit: int) -> list[tuple[int, int]]:
    """Return the pairs ``i < j`` of rows that differ in at most ``limit`` bits, in ascending order.

    The bits are divided into more than ``limit / 2`` bands, so that near rows differ in at most one bit of some band.
    Only rows that do so are compared: for hashes of images about one pair in a thousand. 100,000 hashes take seconds.

    Args:
        bits: uint8 ``[n, b]``, 0 or 1.
        limit: maximum number of differing bits, 0 or more.
    """
    count = max(limit // 2 + 1, -(-bits.shape[1] // 62))  # a band fits an int64
    # Neighbouring bits of a hash depend on each other: mixed, they make more different bands.
    mixed = np.random.default_rng(0).permutation(bits.shape[1])
    packed = np.packbits(bits, axis=1)
    found: list[Keys] = [np.empty(0, dtype=np.int64)]
    for band in np.array_split(mixed, count):
        keys = bits[:, band].astype(np.int64) @ (np.int64(1) << np.arange(len(band), dtype=np.int64))
        for first, second in _candidates(keys, len(band)):
            near = _distances(packed[first], packed[second]) <= limit
            first, second = first[near], second[near]
            found.append(np.minimum(first, second) * len(bits) + np.maximum(first, second))
    pairs = np.unique(np.concatenate(found))
    return list(zip((pairs // max(len(bits), 1)).tolist(), (pairs % max(len(bits), 1)).tolist(), strict=True))


def _candidates(keys: Keys, width: int) -> Iterator[tuple[Keys, Keys]]:
    """Yield the pairs of positions whose keys of ``width`` bits are equal or differ in one bit, each once."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    # Equal keys: each position with the later ones of its run.
    ends = np.searchsorted(ordered, ordered, side="right")
    yield from _expand(order, order, np.arange(1, len(order) + 1), ends)
    for bit in range(width):
        without = np.flatnonzero((ordered >> bit) & 1 == 0)
        sought = ordered[without] | (1 << bit)  # in order as far as possible, which makes the search fast
        starts, ends = (np.searchsorted(ordered, sought, side=side) for side in ("left", "right"))
        yield from _expand(order[without], order, starts, ends)


def _expand(left: Keys, right: Keys, starts: Keys, ends: Keys) -> Iterator[tuple[Keys, Keys]]:
    """Yield the pairs of each ``left`` with ``right[start:end]``, in pieces of about ``_CHUNK`` pairs."""
    filled = np.flatnonzero(ends > starts)
    left, starts, counts = left[filled], starts[filled], (ends - starts)[filled]
    total = np.cumsum(counts)
    begin = 0
    while begin < len(left):
        done = total[begin - 1] if begin else 0
        end = max(int(np.searchsorted(total, done + _CHUNK, side="right")), begin + 1)
        part = counts[begin:end]
        within = np.arange(part.sum()) - np.repeat(np.cumsum(part) - part, part)
        yield np.repeat(left[begin:end], part), right[np.repeat(starts[begin:end], part) + within]
        begin = end


def _distances(first: Bits, second: Bits) -> npt.NDArray[np.int64]:
    """Return the number of differing bits of packed rows."""
    return _ONES[first ^ second].sum(axis=1, dtype=np.int64)


_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
