"""Weights 1/p: their scale, the weight of cells that are never sampled, and kinds of input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fastccsa.sampling import PairSampler, inverse_probability
from fastccsa.system.errors import InputError

P = np.array([0.5, 0.25, 0.0, 0.125, 0.125])


@pytest.mark.parametrize(
    ("normalize", "zero", "expected"),
    [
        (None, 0.0, [2, 4, 0, 8, 8]),
        ("max", 0.0, [0.25, 0.5, 0, 1, 1]),
        ("mean", 0.0, [0.5, 1, 0, 2, 2]),
        (None, "max", [2, 4, 8, 8, 8]),
        ("max", "max", [0.25, 0.5, 1, 1, 1]),
        ("mean", "max", [0.5, 1, 2, 2, 2]),
    ],
)
def test_weights_by_hand(normalize, zero, expected):
    weights = inverse_probability(P, normalize, zero)
    assert weights.dtype == np.float64
    np.testing.assert_array_equal(weights, expected)


@given(
    hnp.arrays(np.int64, st.tuples(st.integers(1, 8), st.integers(1, 8)), elements=st.integers(0, 10**6)).filter(
        lambda counts: counts.sum() > 0
    ),
    st.sampled_from([0.0, "max"]),
)
def test_mean_weights_have_expectation_one_and_undo_the_probabilities(counts, zero):
    p = counts / counts.sum()
    weights = inverse_probability(p, zero=zero)
    assert (p * weights).sum() == pytest.approx(1)
    # Every sampled cell contributes the same.
    np.testing.assert_allclose((p * weights)[p > 0], 1 / (p > 0).sum())


def test_a_sampler_gives_weights_of_mean_one():
    """The paper's 'balanced equally' needs this: the weights keep the scale of every term of the loss."""
    labels = np.repeat(np.arange(4), [80, 10, 5, 5])
    sampler = PairSampler(labels, np.arange(100) % 3, num_classes=7, batch_size=100)
    tables = sampler.probabilities()
    weights = inverse_probability(tables.joint)
    drawn = np.concatenate([weights[tuple(labels[index] for index in sampler.batch(e, 0))] for e in range(400)])
    assert drawn.mean() == pytest.approx(1, abs=4 * drawn.std() / np.sqrt(len(drawn)))
    assert weights[4:].sum() == weights[:, 4:].sum() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tensors_give_tensors_of_their_dtype(dtype):
    p = torch.tensor(P, dtype=dtype).reshape(1, 5).requires_grad_()
    weights = inverse_probability(p, zero="max")
    assert weights.dtype == dtype
    assert weights.shape == p.shape
    assert not weights.requires_grad
    torch.testing.assert_close(weights, torch.tensor([[0.5, 1, 2, 2, 2]], dtype=dtype))
    assert inverse_probability(torch.tensor([0, 1])).dtype == torch.float32


def test_the_input_is_not_modified():
    for p in (P.copy(), torch.tensor(P)):
        inverse_probability(p, zero="max")
        np.testing.assert_array_equal(np.asarray(p), P)


def test_lists_are_accepted():
    np.testing.assert_array_equal(inverse_probability([0.5, 0.5], None), [2, 2])


@pytest.mark.parametrize(
    ("p", "options", "message"),
    [
        ([0.5, 0.4], {}, "sum to 0.9"),
        ([1.5, -0.5], {}, "none negative"),
        ([float("nan"), 1.0], {}, "finite"),
        ([float("inf"), 1.0], {}, "finite"),
        ([], {}, "sum to 0"),
        ([1.0, 1e-310], {}, "too small to invert"),
        (torch.tensor([1.0, 1e-42]), {}, "too small to invert"),
        ([0.5, 0.5], {"normalize": "sum"}, "normalize must be"),
        ([0.5, 0.5], {"zero": "min"}, "zero must be"),
        ([0.5, 0.5], {"zero": 1.0}, "zero must be"),
    ],
)
def test_bad_input_is_named(p, options, message):
    with pytest.raises(InputError, match=message):
        inverse_probability(p, **options)
