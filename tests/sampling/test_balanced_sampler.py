"""The balanced sampler: how often it draws what, and that every rank takes its part of the same epoch."""

from __future__ import annotations

import numpy as np
import pytest

from fastccsa.sampling import BalancedSampler
from fastccsa.system.errors import InputError

# Class 0 in three domains, class 1 in two, class 3 in one; class 2 has no image.
LABELS = np.array([0] * 90 + [1] * 20 + [3] * 2)
DOMAINS = np.array([0] * 70 + [1] * 15 + [2] * 5 + [0] * 19 + [2] + [1] * 2)


def draws(sampler: BalancedSampler, epochs: int) -> np.ndarray:
    return np.concatenate([sampler.batch(epoch, step) for epoch in range(epochs) for step in range(len(sampler))])


def test_classes_domains_and_images_are_equally_probable() -> None:
    sampler = BalancedSampler(LABELS, DOMAINS, num_classes=4, batch_size=32, seed=5)
    epochs = 400
    counts = np.bincount(draws(sampler, epochs), minlength=len(LABELS))
    total = epochs * len(LABELS)
    assert counts.sum() == total
    for image, count in enumerate(counts):
        domains = len(set(DOMAINS[LABELS[image] == LABELS]))
        images = ((LABELS[image] == LABELS) & (DOMAINS[image] == DOMAINS)).sum()
        p = 1 / (3 * domains * images)
        # Five standard deviations of a binomial count, for each of 112 images.
        assert abs(count - total * p) <= 5 * np.sqrt(total * p * (1 - p)), image
    assert sampler.probabilities().tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


def test_draws_of_different_positions_are_independent() -> None:
    """The class of a draw says nothing about that of the next one."""
    classes = LABELS[draws(BalancedSampler(LABELS, DOMAINS, num_classes=4, seed=1), 300)]
    same = (classes[1:] == classes[:-1]).mean()
    assert same == pytest.approx(1 / 3, abs=5 * np.sqrt(2 / 9 / len(classes)))


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_the_epoch(world_size: int) -> None:
    alone = BalancedSampler(LABELS, DOMAINS, num_classes=4, batch_size=8, seed=3)
    ranks = [
        BalancedSampler(
            LABELS, DOMAINS, num_classes=4, batch_size=8 // world_size, seed=3, rank=rank, world_size=world_size
        )
        for rank in range(world_size)
    ]
    for epoch in (0, 7):
        for step in range(len(alone)):
            parts = [sampler.batch(epoch, step) for sampler in ranks]
            assert np.concatenate(parts).tolist() == alone.batch(epoch, step).tolist()


def test_seeds_and_epochs_differ() -> None:
    one, other = (BalancedSampler(LABELS, DOMAINS, num_classes=4, seed=seed) for seed in (0, 1))
    assert one.batch(0, 0).tolist() == one.batch(0, 0).tolist()
    assert one.batch(0, 0).tolist() != one.batch(1, 0).tolist()
    assert one.batch(0, 0).tolist() != other.batch(0, 0).tolist()
    one.set_epoch(2)
    assert next(iter(one)).tolist() == one.batch(2, 0).tolist()


def test_one_image() -> None:
    sampler = BalancedSampler([2], [1], num_classes=3, batch_size=4)
    assert sampler.batch(0, 0).tolist() == [0]
    assert sampler.probabilities().tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "domains", "message"),
    [
        ([], [], "labels must hold one integer per image"),
        ([0, 5], [0, 0], "labels"),
        ([0], [-1], "domains"),
    ],
)
def test_bad_input(labels: list[int], domains: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BalancedSampler(labels, domains, num_classes=3)
