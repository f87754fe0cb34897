"""The counter-based generator against its authors' known answers, and the uniform numbers made from it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fastccsa.sampling import _sampler

# Counter, key and result of philox4x32 with 10 rounds, from Random123's kat_vectors.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, result):
    assert _sampler.philox4x32(words(counter), words(key)) == words(result)


def test_uniforms_are_leading_bits_of_philox():
    """Two words make one number; the counter is (position, epoch, stream and block)."""
    seed, stream, epoch, position = 2**63 + 5, 2, 9, 2**35 + 3
    block = _sampler.philox4x32(
        [position & 0xFFFFFFFF, position >> 32, epoch, (stream << 16) + 1], [seed & 0xFFFFFFFF, seed >> 32]
    )
    expected = [((high << 32 | low) >> 11) / 2**53 for low, high in (block[:2], block[2:])]
    drawn = _sampler.uniforms(seed, stream, epoch, [position], 4)
    np.testing.assert_array_equal(drawn[0, 2:], expected)


def test_uniforms_depend_only_on_their_own_position():
    positions = np.array([0, 1, 7, 2**40])
    drawn = _sampler.uniforms(3, 1, 4, positions, 5)
    assert drawn.shape == (4, 5)
    assert drawn.dtype == np.float64
    np.testing.assert_array_equal(drawn[2], _sampler.uniforms(3, 1, 4, [7], 5)[0])
    np.testing.assert_array_equal(drawn[:, :3], _sampler.uniforms(3, 1, 4, positions, 3))
    assert _sampler.uniforms(3, 1, 4, [], 5).shape == (0, 5)
    assert _sampler.uniforms(3, 1, 4, positions, 0).shape == (4, 0)


def test_uniforms_differ_by_seed_stream_epoch_position_and_column():
    drawn = [
        _sampler.uniforms(seed, stream, epoch, [0, 1, 2**32], 4)
        for seed in (0, 1, 2**32)
        for stream in (0, 1, 256)
        for epoch in (0, 1, 2**16, 2**31)
    ]
    assert len(np.unique(drawn)) == np.size(drawn)


@pytest.mark.parametrize("axis", [0, 1])
def test_uniforms_are_uniform_and_uncorrelated(axis):
    drawn = _sampler.uniforms(0, 0, 0, np.arange(20_000), 8)
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    cells = (drawn * 8).astype(int)
    neighbours = np.take(cells, range(cells.shape[axis] - 1), axis) * 8 + np.take(
        cells, range(1, cells.shape[axis]), axis
    )
    assert stats.chisquare(np.bincount(neighbours.ravel(), minlength=64)).pvalue > 1e-3


@pytest.mark.parametrize(("stream", "positions", "count"), [(65535, [0], 1), (0, [[0]], 1), (0, [0], 2**17 + 1)])
def test_uniforms_reject_what_they_cannot_count(stream, positions, count):
    with pytest.raises(ValueError, match="must be"):
        _sampler.uniforms(0, stream, 0, positions, count)
