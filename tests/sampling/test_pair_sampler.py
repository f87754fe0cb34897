"""The pair sampler's arguments: accepted ones, rejected ones, and the messages."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastccsa.sampling import PairSampler
from fastccsa.system.errors import InputError

LABELS = [0, 1, 2, 0, 1, 2]
DOMAINS = [0, 0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    "convert",
    [tuple, np.array, torch.tensor]
    + [lambda values, t=t: np.array(values, dtype=t) for t in ("u1", "i2", "u8", ">i4")]
    + [lambda values: np.repeat(values, 2)[::2], lambda values: torch.tensor(values, dtype=torch.int8)],
)
def test_labels_come_as_lists_arrays_or_tensors(convert):
    expected = PairSampler(LABELS, DOMAINS).batch(0, 0)
    np.testing.assert_array_equal(PairSampler(convert(LABELS), convert(DOMAINS)).batch(0, 0), expected)


def test_later_changes_to_the_labels_do_not_affect_the_sampler():
    labels, domains = np.array(LABELS), np.array(DOMAINS)
    sampler = PairSampler(labels, domains)
    before = sampler.batch(0, 0)
    labels[:] = 0
    domains[:] = 0
    np.testing.assert_array_equal(sampler.batch(0, 0), before)


def test_attributes_hold_the_arguments():
    sampler = PairSampler(LABELS, DOMAINS, primary=1, num_classes=4, batch_size=2, seed=9, rank=1, world_size=2)
    assert (sampler.size, sampler.batch_size, sampler.seed) == (6, 2, 9)
    assert (sampler.rank, sampler.world_size, sampler.primary) == (1, 2, 1)
    np.testing.assert_array_equal(sampler.counts, [[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 1, 0]])


def test_five_bytes_per_image_are_kept():
    size = 70_000
    sampler = PairSampler(np.arange(size) % 7, np.arange(size) % 5)
    assert 5 * size <= sampler.nbytes < 5 * size + 1000


@pytest.mark.parametrize(
    ("labels", "domains", "options", "message"),
    [
        ([0, 1, 7], [0, 1, 1], {}, r"labels\[2\] is 7, outside 0\.\.6"),
        ([0, -1, -2], [0, 1, 1], {}, r"labels\[1\] is -1, outside 0\.\.6"),
        ([0, 1], [0, -1], {}, r"domains\[1\] is -1"),
        ([0, 1, 2], [0, 1], {}, "one entry per image, got 3 and 2"),
        ([0.0, 1.0], [0, 1], {}, "labels must be integers, got dtype float64"),
        ([0, 1], [False, True], {}, "domains must be integers, got dtype bool"),
        (["nv", "mel"], [0, 1], {}, "labels must be integers"),
        ([[0, 1]], [0, 1], {}, r"labels must hold one integer per image, got an array of shape \(1, 2\)"),
        ([], [], {}, r"shape \(0,\)"),
        ([0, 1, 2], [4, 4, 4], {}, r"one domain only \(4\).*ImageSampler"),
        ([0, 1], [0, 1], {"primary": 2}, "primary=2 has no image; the domains with images are 0, 1"),
        ([0, 1], [0, 3], {"primary": 1}, "primary=1 has no image; the domains with images are 0, 3"),
        ([0, 1], [0, 1], {"primary": -1}, "primary must be an integer from 0"),
        ([3, 3, 3], [0, 1, 1], {}, r"one class only \(3\)"),
        ([0, 1], [0, 1], {"match_probability": 1.5}, "match_probability must be a number from 0 to 1"),
        ([0, 1], [0, 1], {"match_probability": float("nan")}, "match_probability"),
        ([0, 1], [0, 1], {"match_probability": "0.25"}, "match_probability"),
        ([0, 1], [0, 1], {"negatives": "all"}, "negatives is 'all'; choose one of 'different', 'any'"),
        ([0, 1], [0, 10**8], {}, r"domains\[1\] is 100000000, outside"),
    ],
)
def test_bad_input_is_named(labels, domains, options, message):
    with pytest.raises(InputError, match=message):
        PairSampler(labels, domains, **options)


@pytest.mark.parametrize("options", [{"match_probability": 1.0}, {"negatives": "any"}])
def test_one_class_suffices_if_no_other_is_drawn(options):
    sampler = PairSampler([3, 3, 3], [0, 1, 1], **options)
    first, second = sampler.batch(0, 0)
    assert (first != second).all()
    assert sampler.probabilities().joint[3, 3] == 1
