"""The computed permutation: a bijection at every size, and as random as a shuffle."""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastccsa.sampling._sampler import MAX_SIZE, permute

SIGNIFICANCE = 1e-5  # of each of about a hundred tests, all with fixed seeds
EPOCHS = 40_000
# 64 is the last size shuffled into a table, 65 the first that the network computes; 72 = 8 x 9 fills its grid.
SIZES = [20, 64, 65, 72, 101]


@lru_cache
def epochs(size: int, number: int) -> np.ndarray:
    """Return the permutations of the first epochs, [number, size]."""
    return np.stack([permute(size, 11, epoch, 0, size) for epoch in range(number)])


def pattern(rows: np.ndarray) -> np.ndarray:
    """Number the order that the k values of each row are in, of k! possible ones."""
    width = rows.shape[1]
    ranks = rows.argsort(axis=1).argsort(axis=1)
    numbers = ranks @ width ** np.arange(width)
    codes = sorted(sum(r * width**i for i, r in enumerate(p)) for p in permutations(range(width)))
    return np.searchsorted(codes, numbers)


def test_every_small_size_is_a_bijection():
    for size in range(400):
        np.testing.assert_array_equal(np.sort(permute(size, 5, 1, 0, size)), np.arange(size))


@pytest.mark.parametrize("size", [2**16, 2**16 + 1, 999_983, 10**6])
def test_large_sizes_are_bijections(size):
    np.testing.assert_array_equal(np.sort(permute(size, 5, 1, 0, size)), np.arange(size))


@pytest.mark.parametrize("size", [10**8, 2**40, MAX_SIZE])
def test_huge_sizes_stay_in_range_without_repeats(size):
    for begin in (0, size // 2, size - 20_000):
        elements = permute(size, 5, 1, begin, begin + 20_000)
        assert elements.min() >= 0
        assert elements.max() < size
        assert len(np.unique(elements)) == len(elements)
        assert stats.kstest(elements / size, "uniform").pvalue > SIGNIFICANCE


@given(st.integers(1, 500), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.data())
@settings(deadline=None)
def test_any_part_can_be_computed_on_its_own(size, seed, epoch, data):
    begin = data.draw(st.integers(0, size))
    end = data.draw(st.integers(begin, size))
    whole = permute(size, seed, epoch, 0, size)
    np.testing.assert_array_equal(permute(size, seed, epoch, begin, end), whole[begin:end])


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_tiny_permutations_are_all_equally_likely(size):
    counts = np.bincount(pattern(epochs(size, 24_000)), minlength=math.factorial(size))
    assert stats.chisquare(counts).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("size", SIZES)
def test_every_image_is_equally_likely_at_a_position(size):
    for position in (0, 1, size // 2, size - 1):
        counts = np.bincount(epochs(size, EPOCHS)[:, position], minlength=size)
        assert stats.chisquare(counts).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("size", SIZES)
def test_two_positions_are_independent(size):
    coarse = epochs(size, EPOCHS) * 8 // size  # eighths of the images, so that each cell is well filled
    shares = np.bincount(np.arange(size) * 8 // size) / size
    for first, second in [(0, 1), (0, 9), (3, size - 1)]:
        counts = np.bincount(coarse[:, first] * 8 + coarse[:, second], minlength=64)
        # Two draws without replacement.
        expected = (size * np.outer(shares, shares) - np.diag(shares)) / (size - 1)
        assert stats.chisquare(counts, expected.ravel() * EPOCHS).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("size", SIZES)
def test_four_positions_come_in_every_order(size):
    columns = math.ceil(size / 8)
    for places in [(0, 1, 2, 3), (0, 1, columns, columns + 1), (0, 5, size // 2, size - 1)]:
        counts = np.bincount(pattern(epochs(size, EPOCHS)[:, places]), minlength=24)
        assert stats.chisquare(counts).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("size", SIZES)
def test_there_are_as_many_fixed_points_as_in_a_shuffle(size):
    fixed = (epochs(size, EPOCHS) == np.arange(size)).sum(axis=1)
    expected = stats.poisson.pmf(np.arange(5), 1)
    expected = np.append(expected, 1 - expected.sum())
    counts = np.bincount(np.minimum(fixed, 5), minlength=6)
    assert stats.chisquare(counts, expected * EPOCHS).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("size", [8, 64, 72, 100, 121])
def test_odd_and_even_permutations_are_equally_likely(size):
    def is_odd(permutation):
        # The sign of a permutation is the determinant of its matrix.
        return np.linalg.det(np.eye(size)[permutation]) < 0

    odd = sum(is_odd(permutation) for permutation in epochs(size, 1000))
    assert stats.binomtest(int(odd), 1000).pvalue > SIGNIFICANCE


def test_consecutive_epochs_and_seeds_are_unrelated():
    size = 1000
    base = permute(size, 0, 0, 0, size)
    for seed, epoch in [(0, 1), (1, 0), (2**32, 0), (2**63, 0), (0, 2**31)]:
        other = permute(size, seed, epoch, 0, size)
        assert abs(stats.spearmanr(base, other).statistic) < 0.13
        assert (base == other).sum() < 10
        assert np.array_equal(other, permute(size, seed, epoch, 0, size))


@pytest.mark.parametrize(("size", "begin", "end"), [(10, 0, 11), (10, 6, 5), (MAX_SIZE + 1, 0, 1)])
def test_spans_outside_the_epoch_are_rejected(size, begin, end):
    with pytest.raises(ValueError, match="must"):
        permute(size, 0, 0, begin, end)
