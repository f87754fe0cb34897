"""Which pairs are drawn, and how often, against exact enumeration of the policy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from fastccsa.sampling import PairSampler
from fastccsa.system.errors import InputError

SIGNIFICANCE = 1e-3


def enumerate_pairs(
    labels: Sequence[int],
    domains: Sequence[int],
    primary: int = 0,
    match_probability: Fraction = Fraction(1, 4),
    negatives: str = "different",
) -> dict[tuple[int, int], Fraction]:
    """Compute P(x1, x2) of every pair of images that can occur, by brute force over lists of images.

    It is written from the description of the policy and shares no code with the package.
    """
    images = range(len(labels))
    secondary = [image for image in images if domains[image] != primary]
    outcomes: dict[tuple[int, int], Fraction] = defaultdict(Fraction)

    def others(x1: int, qualifies: Callable[[int], bool]) -> list[int]:
        return [x2 for x2 in images if x2 != x1 and qualifies(x2)]

    def first_nonempty(*sets: list[int]) -> list[int]:
        return next(candidates for candidates in sets if candidates)

    for x1 in images:
        for witness in secondary:  # drawing a secondary image draws its domain in proportion to its size
            s = domains[witness]
            weight = Fraction(1, len(labels) * len(secondary))

            def same(x2: int, x1: int = x1) -> bool:
                return labels[x2] == labels[x1]

            matches = first_nonempty(
                others(x1, lambda x2, s=s, same=same: domains[x2] == s and same(x2)),
                others(x1, lambda x2, same=same: domains[x2] == primary and same(x2)),
                others(x1, same),
                [x1],
            )
            for x2 in matches:
                outcomes[x1, x2] += weight * match_probability / len(matches)

            if match_probability == 1:
                continue
            if negatives == "different":
                rest = first_nonempty(
                    others(x1, lambda x2, s=s, same=same: domains[x2] == s and not same(x2)),
                    others(x1, lambda x2, same=same: domains[x2] == primary and not same(x2)),
                    others(x1, lambda x2, same=same: not same(x2)),
                )
            else:
                rest = first_nonempty(
                    others(x1, lambda x2, s=s: domains[x2] == s),
                    others(x1, lambda x2: domains[x2] == primary),
                )
            for x2 in rest:
                outcomes[x1, x2] += weight * (1 - match_probability) / len(rest)

    assert sum(outcomes.values()) == 1
    return dict(outcomes)


# (labels, domains, primary), three classes; every fall-back of the policy occurs in one of them.
SMALL_CASES = {
    "all classes in all domains": ([0, 1, 2, 0, 1, 2, 0, 0, 1, 2], [0, 0, 0, 1, 1, 1, 2, 2, 2, 2], 0),
    "a secondary domain of one class": ([0, 0, 1, 2, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1], 0),
    "a secondary domain of one image": ([0, 1, 2, 2, 1, 0, 1], [0, 0, 0, 0, 1, 2, 2], 0),
    "a class absent everywhere": ([0, 2, 2, 0, 2, 0], [0, 0, 0, 1, 1, 1], 0),
    "a class of one image": ([0, 0, 1, 0, 0, 2], [0, 0, 0, 1, 1, 1], 0),
    "a class the primary domain lacks": ([0, 0, 2, 0, 2, 2, 1], [0, 0, 1, 1, 2, 2, 2], 0),
    "a primary domain of one class": ([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2], 0),
    "a primary domain that is not the first": ([0, 1, 2, 0, 1, 2, 1], [0, 0, 1, 2, 2, 2, 2], 2),
    "a domain number without images": ([0, 1, 2, 0, 1], [3, 3, 3, 1, 1], 3),
    "two images": ([0, 1], [0, 1], 0),
}

# Images by domain and class, with the imbalance of dermatology: rare classes, gaps, one domain of one class.
REALISTIC_COUNTS = np.array(
    [
        [670, 111, 51, 12, 110, 14, 33],
        [33, 8, 24, 7, 26, 12, 12],
        [115, 50, 8, 4, 9, 6, 0],
        [62, 30, 3, 0, 45, 1, 2],
        [16, 4, 0, 0, 0, 0, 0],
        [925, 0, 0, 0, 0, 0, 0],
        [9, 5, 1, 0, 0, 0, 0],
    ]
)


def realistic_data() -> tuple[np.ndarray, np.ndarray]:
    domains, labels = np.indices(REALISTIC_COUNTS.shape)
    labels, domains = (np.repeat(part.ravel(), REALISTIC_COUNTS.ravel()) for part in (labels, domains))
    order = np.random.default_rng(0).permutation(len(labels))
    return labels[order], domains[order]


def epoch_pairs(sampler: PairSampler, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw all pairs of the first epochs, [epochs * n] each."""
    batches = [sampler.batch(epoch, step) for epoch in range(epochs) for step in range(len(sampler))]
    first, second = zip(*batches, strict=True)
    return np.concatenate(first), np.concatenate(second)


def class_table(pairs: dict, labels, num_classes: int) -> np.ndarray:
    table = [[Fraction(0)] * num_classes for _ in range(num_classes)]
    for (x1, x2), probability in pairs.items():
        table[labels[x1]][labels[x2]] += probability
    return np.array(table, dtype=np.float64)


def assert_tables_agree(sampler: PairSampler, joint: np.ndarray) -> None:
    tables = sampler.probabilities()
    np.testing.assert_allclose(tables.joint, joint, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(tables.first, joint.sum(axis=1), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(tables.second, joint.sum(axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(tables.joint == 0, joint == 0)


@pytest.mark.parametrize("negatives", ["different", "any"])
@pytest.mark.parametrize("match_probability", [Fraction(0), Fraction(1, 4), Fraction(1)])
@pytest.mark.parametrize("case", SMALL_CASES)
def test_probabilities_equal_the_enumeration(case, match_probability, negatives):
    labels, domains, primary = SMALL_CASES[case]
    sampler = PairSampler(labels, domains, primary, 3, float(match_probability), negatives)
    pairs = enumerate_pairs(labels, domains, primary, match_probability, negatives)
    assert_tables_agree(sampler, class_table(pairs, labels, 3))


@given(
    images=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12),
    primary=st.integers(0, 3),
    eighths=st.integers(0, 8),
    negatives=st.sampled_from(["different", "any"]),
)
@settings(deadline=None)
def test_probabilities_equal_the_enumeration_of_any_data(images, primary, eighths, negatives):
    labels, domains = zip(*images, strict=True)
    assume(primary in domains and len(set(domains)) > 1)
    assume(len(set(labels)) > 1)
    match_probability = Fraction(eighths, 8)
    sampler = PairSampler(labels, domains, primary, 4, float(match_probability), negatives)
    pairs = enumerate_pairs(labels, domains, primary, match_probability, negatives)
    assert_tables_agree(sampler, class_table(pairs, labels, 4))


@pytest.mark.parametrize("negatives", ["different", "any"])
@pytest.mark.parametrize("case", SMALL_CASES)
def test_sampled_images_follow_the_enumeration(case, negatives):
    """Each x1's partners over many epochs, image by image: every fall-back and the exclusion of x1."""
    labels, domains, primary = SMALL_CASES[case]
    size, epochs = len(labels), 4000
    sampler = PairSampler(labels, domains, primary, 3, negatives=negatives, batch_size=size, seed=1)
    expected = np.zeros((size, size))
    for (x1, x2), probability in enumerate_pairs(labels, domains, primary, negatives=negatives).items():
        expected[x1, x2] = probability * size * epochs
    first, second = epoch_pairs(sampler, epochs)
    observed = np.bincount(first * size + second, minlength=size * size).reshape(size, size)

    assert (observed.sum(axis=1) == epochs).all()
    possible = expected > 0
    assert (observed[~possible] == 0).all()
    # Rows are independent multinomials, so their statistics and degrees of freedom add up.
    statistic = ((observed - expected)[possible] ** 2 / expected[possible]).sum()
    freedom = possible.sum() - size
    assert freedom == 0 or stats.chi2.sf(statistic, freedom) > SIGNIFICANCE


@pytest.mark.parametrize("negatives", ["different", "any"])
def test_sampled_classes_follow_the_tables(negatives):
    """Chi-square over the joint cells of many epochs of imbalanced data."""
    labels, domains = realistic_data()
    epochs = 150
    sampler = PairSampler(labels, domains, negatives=negatives, batch_size=512, seed=2)
    first, second = epoch_pairs(sampler, epochs)
    observed = np.bincount(labels[first] * 7 + labels[second], minlength=49).reshape(7, 7)
    joint = sampler.probabilities().joint

    assert joint.sum() == pytest.approx(1)
    # Given y1, whose count is fixed by the epoch, y2 is a multinomial over the row.
    statistic, freedom = 0.0, 0
    for row, counts in zip(joint, observed, strict=True):
        expected = row / row.sum() * counts.sum()
        rare = expected < 5  # pooled: chi-square needs filled cells
        expected = np.append(expected[~rare], expected[rare].sum())
        counts = np.append(counts[~rare], counts[rare].sum())
        statistic += ((counts - expected)[expected > 0] ** 2 / expected[expected > 0]).sum()
        freedom += (expected > 0).sum() - 1
    assert freedom > 30
    assert SIGNIFICANCE < stats.chi2.sf(statistic, freedom) < 1 - SIGNIFICANCE
    np.testing.assert_array_equal(observed.sum(axis=1), np.bincount(labels) * epochs)


@pytest.mark.parametrize("match_probability", [0.0, 0.25, 0.6, 1.0])
def test_share_of_matches_is_the_match_probability(match_probability):
    labels, domains = realistic_data()
    sampler = PairSampler(labels, domains, match_probability=match_probability, batch_size=512)
    assert np.trace(sampler.probabilities().joint) == pytest.approx(match_probability, abs=1e-12)
    first, second = epoch_pairs(sampler, 20)
    matches = int((labels[first] == labels[second]).sum())
    assert stats.binomtest(matches, len(first), match_probability).pvalue > SIGNIFICANCE


def test_secondary_domains_are_drawn_in_proportion_to_size():
    """Every class is in every domain, so that no fall-back moves x2 to another domain."""
    sizes = [400, 30, 70, 300]
    domains = np.repeat(np.arange(4), sizes)
    labels = np.arange(800) % 2
    sampler = PairSampler(labels, domains, num_classes=2, batch_size=800)
    _, second = epoch_pairs(sampler, 50)
    counts = np.bincount(domains[second], minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], np.array(sizes[1:]) / 400 * len(second)).pvalue > SIGNIFICANCE


def test_a_pair_never_holds_an_image_twice_if_another_qualifies():
    labels, domains = realistic_data()
    for negatives in ("different", "any"):
        sampler = PairSampler(labels, domains, negatives=negatives, batch_size=512)
        first, second = epoch_pairs(sampler, 30)
        assert (first != second).all()


def test_a_lone_image_of_its_class_matches_itself():
    labels, domains = [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]
    sampler = PairSampler(labels, domains, num_classes=2, match_probability=1.0, batch_size=5)
    first, second = epoch_pairs(sampler, 20)
    np.testing.assert_array_equal(second[first == 2], 2)
    assert (second[first != 2] != first[first != 2]).all()


def test_many_classes_and_images_draw_by_the_policy():
    """Sizes that need wider integers internally: more than 256 groups and more than 65536 images."""
    rng = np.random.default_rng(0)
    size, num_classes = 70_000, 40_000
    labels, domains = rng.integers(0, num_classes, size), rng.integers(0, 3, size)
    sampler = PairSampler(labels, domains, num_classes=num_classes, batch_size=size)
    first, second = sampler.batch(0, 0)
    np.testing.assert_array_equal(np.sort(first), np.arange(size))
    share = (labels[first] == labels[second]).mean()
    assert share == pytest.approx(0.25, abs=0.01)
    different = labels[first] != labels[second]
    assert (domains[second[different]] != 0).all()


def test_joint_probability_of_all_pairs_is_that_of_independent_draws():
    labels, domains = realistic_data()
    sampler = PairSampler(labels, domains, batch_size=512)
    drawn, independent = sampler.probabilities(), sampler.probabilities(pairs="all")
    first, second = epoch_pairs(sampler, 60)
    table = np.zeros_like(independent.joint)
    np.add.at(table, (labels[first], labels[np.roll(second, 1)]), 1)
    np.testing.assert_allclose(independent.joint, table / table.sum(), atol=0.005)
    np.testing.assert_allclose(independent.joint.sum(1), drawn.first)
    np.testing.assert_allclose(independent.joint.sum(0), drawn.second)
    assert np.abs(independent.joint - drawn.joint).max() > 0.02
    with pytest.raises(InputError, match="pairs is 'some'"):
        sampler.probabilities(pairs="some")
