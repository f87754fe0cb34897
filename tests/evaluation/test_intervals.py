"""Intervals against a plain loop over samples, cases whose distribution is known, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastccsa.evaluation.intervals import Bootstrap, Interval
from fastccsa.system.errors import InputError

DENSITY = 0.0584  # of a standard normal variable at its 2.5 percentile


def recall_by_hand(targets: np.ndarray, predictions: np.ndarray, domains: np.ndarray, group) -> float:
    by_domain = []
    for domain in group:
        here = domains == domain
        present = sorted(set(targets[here].tolist()))
        by_domain.append(np.mean([np.mean(predictions[here & (targets == one)] == one) for one in present]))
    return float(np.mean(by_domain))


def example() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, list[tuple[int, ...]]]:
    """Three domains, three seeds, two arms with different recalls; domain 2 has one class, and groups differ."""
    random = np.random.default_rng(5)
    domains = np.repeat([0, 1, 2], [60, 45, 20])
    targets = np.where(domains == 2, 1, random.integers(0, 3, len(domains)))
    skill = np.array([0.8, 0.5, 0.7])[:, None]
    hard = random.random(len(domains)) < 0.4  # the same images are hard for all seeds
    arms = []
    for bonus in (0.1, 0.0):
        right = random.random((3, len(domains))) < np.where(hard, 0.1, skill + bonus)
        arms.append(np.where(right, targets, (targets + 1) % 3))
    return targets, domains, arms[0], arms[1], [(0, 1), (1,), (0, 2)]


def slow_samples(count: int, difference: bool) -> np.ndarray:
    """Draw seeds, then images of each cell, and score the sample from its predictions."""
    targets, domains, first, second, groups = example()
    random = np.random.default_rng(9)
    cells = [np.flatnonzero((domains == d) & (targets == t)) for d in range(3) for t in range(3)]
    samples = []
    for _ in range(count):
        images = np.concatenate([random.choice(cell, len(cell)) for cell in cells if len(cell)])
        scores = []
        for seed in random.choice(3, 3):
            one, two = (
                recall_by_hand(targets[images], arm[seed][images], domains[images], groups[seed])
                for arm in (first, second)
            )
            scores.append(one - two if difference else one)
        samples.append(np.mean(scores))
    return np.array(samples)


@pytest.mark.parametrize("difference", [False, True])
def test_it_agrees_with_a_plain_loop(difference: bool) -> None:
    targets, domains, first, second, groups = example()
    count = 1500
    samples = slow_samples(count, difference)
    bootstrap = Bootstrap(targets, domains, replicates=20 * count)
    found = bootstrap.difference(first, second, groups) if difference else bootstrap.recall(first, groups)
    spread = samples.std()
    # Four standard errors of a percentile of `count` samples that are roughly normal.
    tolerance = 4 * math.sqrt(0.025 * 0.975 / count) / DENSITY * spread
    np.testing.assert_allclose([found.low, found.high], np.percentile(samples, [2.5, 97.5]), atol=tolerance)
    by_seed = [
        [recall_by_hand(targets, arm[seed], domains, groups[seed]) for seed in range(3)] for arm in (first, second)
    ]
    expected = np.mean(by_seed[0]) - (np.mean(by_seed[1]) if difference else 0)
    assert found.estimate == pytest.approx(expected, abs=1e-6)
    assert found.seeds == 3
    assert found.covers_seeds


def test_a_sample_uses_one_draw_of_images_for_all_seeds() -> None:
    """If all seeds agree on every image, further seeds do not make the interval shorter."""
    targets = np.zeros(50, np.int64)
    once = np.repeat([[0, 1]], 25, axis=1).reshape(1, 50)
    bootstrap = Bootstrap(targets, targets)
    one, many = bootstrap.recall(once, [(0,)]), bootstrap.recall(np.repeat(once, 8, axis=0), [(0,)] * 8)
    assert (many.low, many.high) == (pytest.approx(one.low, abs=1e-6), pytest.approx(one.high, abs=1e-6))


def test_the_images_of_one_cell_follow_the_binomial_distribution() -> None:
    """80 images, 60 right: a sample has Binomial(80, 0.75) right ones, whose percentiles are 52 and 67."""
    targets = np.zeros(80, np.int64)
    predictions = np.where(np.arange(80) < 60, 0, 1)[None]
    found = Bootstrap(targets, targets, replicates=20_000).recall(predictions, [(0,)])
    assert found.estimate == pytest.approx(0.75)
    assert [80 * found.low, 80 * found.high] == pytest.approx([52, 67], abs=1e-4)


def test_seeds_that_are_right_or_wrong_as_a_whole_follow_the_binomial_distribution() -> None:
    """Images do not vary; of 10 drawn seeds, Binomial(10, 0.5) are right, whose percentiles are 2 and 8."""
    targets = np.repeat([0, 1], 5)
    predictions = np.where(np.arange(10)[:, None] < 5, targets, 2)
    bootstrap = Bootstrap(targets, np.zeros(10, np.int64), replicates=20_000)
    found = bootstrap.recall(predictions, [(0,)] * 10)
    assert [found.estimate, found.low, found.high] == pytest.approx([0.5, 0.2, 0.8], abs=1e-6)


def test_all_right_against_all_wrong() -> None:
    targets, domains = np.array([0, 0, 1, 2, 2]), np.array([0, 0, 0, 1, 1])
    right, wrong = np.stack([targets] * 4), np.stack([targets + 1] * 4)
    bootstrap = Bootstrap(targets, domains)
    groups = [(0, 1)] * 4
    for found, value in (
        (bootstrap.difference(right, wrong, groups), 1),
        (bootstrap.difference(wrong, right, groups), -1),
        (bootstrap.difference(right, right, groups), 0),
        (bootstrap.recall(right, groups), 1),
    ):
        assert [found.estimate, found.low, found.high] == pytest.approx([value] * 3, abs=1e-6)


def test_arms_that_agree_on_most_images_have_a_short_interval() -> None:
    """A paired difference is 2 of 100 images, however uncertain both recalls are."""
    targets = np.zeros(100, np.int64)
    second = np.where(np.arange(100) < 50, 0, 1)[None]
    first = np.where(np.arange(100) < 52, 0, 1)[None]
    bootstrap = Bootstrap(targets, targets)
    paired, alone = bootstrap.difference(first, second, [(0,)]), bootstrap.recall(first, [(0,)])
    assert paired.high - paired.low < 0.06 < 0.18 < alone.high - alone.low
    assert paired.low == 0


def test_one_seed_is_named() -> None:
    targets = np.array([0, 0, 1])
    found = Bootstrap(targets, np.zeros(3, np.int64)).recall(targets[None], [(0,)])
    assert not found.covers_seeds
    assert found.text() == "100.0 [100.0, 100.0] (one seed)"
    assert Interval(0.0312, -0.002, 0.0649, 5).text(signed=True) == "+3.1 [-0.2, +6.5]"


def test_the_same_seed_gives_the_same_interval() -> None:
    targets, domains, first, second, groups = example()
    one, again, other = (
        Bootstrap(targets, domains, replicates=200, seed=seed).difference(first, second, groups) for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    ("of_seeds", "of_images", "low", "high"),
    [
        (0.2, 0.0, 0.88, 0.95),  # mostly seeds: too short, by theory 0.90 with 8 seeds
        (0.0, 0.5, 0.93, 0.97),  # mostly images: they are the same for all seeds
        (0.0, 0.0, 0.97, 1.0),  # only the noise of single predictions, which counts at both levels
    ],
)
def test_coverage(of_seeds: float, of_images: float, low: float, high: float) -> None:
    """The interval of a difference contains the true one about as often as it says."""
    random = np.random.default_rng(3)
    trials, seeds, n = 400, 8, 240
    domains, targets = np.repeat([0, 1], n // 2), np.tile([0, 1, 2], n // 3)
    covered = 0
    for trial in range(trials):
        seed, image = (size * random.choice([-1, 1], shape) for size, shape in ((of_seeds, (seeds, 1)), (of_images, n)))
        first = random.random((seeds, n)) < 0.5 + seed + image
        arms = (np.where(right, targets, 3) for right in (first, random.random((seeds, n)) < 0.5))
        found = Bootstrap(targets, domains, replicates=400, seed=trial).difference(*arms, [(0, 1)] * seeds)
        covered += found.low <= 0 <= found.high
    noise = 3 * math.sqrt(0.05 * 0.95 / trials)
    assert low - noise <= covered / trials <= high + noise


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b, p: b.recall(p[0], [(0,)]), r"predictions \(3,\) must be \[seeds, 3\]"),
        (lambda b, p: b.recall(p, [(0,)]), "1 groups of domains for 2 seeds"),
        (lambda b, p: b.recall(p, [(0,), (1,)]), "domain 1 has no test image"),
        (lambda b, p: b.recall(p, [(0,), ()]), "a group of domains is empty"),
        (lambda b, p: b.difference(p, p[:1], [(0,)] * 2), "same seeds and images"),
        (lambda b, p: Bootstrap(p[0], p[0, :2]), r"targets \(3,\) and domains \(2,\)"),
    ],
)
def test_bad_input(make, message: str) -> None:
    targets = np.array([0, 0, 1])
    with pytest.raises(InputError, match=message):
        make(Bootstrap(targets, np.zeros(3, np.int64)), np.stack([targets] * 2))
