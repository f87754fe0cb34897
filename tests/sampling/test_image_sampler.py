"""The sampler of single images; what it shares with the sampler of pairs is tested in test_sharding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastccsa.sampling import ImageSampler, PairSampler
from fastccsa.system.errors import InputError


def test_an_epoch_is_every_image_once_in_a_new_order():
    sampler = ImageSampler([0] * 100, batch_size=7)
    walks = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        walks.append(np.concatenate(list(sampler)))
        np.testing.assert_array_equal(np.sort(walks[-1]), np.arange(100))
    assert (walks[0] != walks[1]).sum() > 90


def test_without_shuffling_images_come_in_order():
    sampler = ImageSampler(torch.zeros(10, dtype=torch.int64), batch_size=4, shuffle=False)
    assert [list(batch) for batch in sampler] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    ranks = [ImageSampler([0] * 10, batch_size=4, shuffle=False, rank=r, world_size=2) for r in range(2)]
    assert [list(s.batch(3, 0)) for s in ranks] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [list(s.batch(3, 1)) for s in ranks] == [[8], [9]]


def test_probabilities_are_the_shares_of_the_classes():
    sampler = ImageSampler([2, 0, 2, 2], num_classes=4)
    np.testing.assert_array_equal(sampler.probabilities(), [0.25, 0, 0.75, 0])


def test_one_image_and_one_domain_suffice():
    assert [list(batch) for batch in ImageSampler([5])] == [[0]]


def test_first_images_of_pairs_follow_the_same_permutation():
    labels, domains = np.arange(90) % 7, np.arange(90) % 3
    images = ImageSampler(labels, seed=4)
    pairs = PairSampler(labels, domains, seed=4)
    np.testing.assert_array_equal(images.batch(6, 1), pairs.batch(6, 1)[0])


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 7], r"labels\[1\] is 7, outside 0\.\.6"), ([], "shape"), ([0.5], "integers")],
)
def test_bad_labels_are_named(labels, message):
    with pytest.raises(InputError, match=message):
        ImageSampler(labels)
