"""Bootstrap samples: what is drawn, with what weight, and the variance that follows."""

from __future__ import annotations

import numpy as np
import pytest

from fastccsa.evaluation.resampling import Resamples, Statistic
from fastccsa.system.errors import InputError


def all_weights(resamples: Resamples) -> np.ndarray:
    return np.concatenate(list(resamples.weights()))


def test_images_of_a_cluster_are_drawn_together() -> None:
    clusters = np.array([7, 3, 3, 7, 1, 9, 9, 9])
    zeros = np.zeros(8, np.int64)
    weights = all_weights(Resamples(zeros, zeros, clusters, replicates=500))
    for cluster in np.unique(clusters):
        same = weights[:, clusters == cluster]
        assert (same == same[:, :1]).all()
    # Four clusters: three draws, each of weight 4/3.
    by_cluster = weights[:, [4, 1, 0, 5]]
    np.testing.assert_allclose(by_cluster.sum(axis=1), 4, rtol=1e-6)
    np.testing.assert_allclose(by_cluster * 3 / 4, np.round(by_cluster * 3 / 4), atol=1e-6)
    assert by_cluster.std(axis=0).min() > 0.5


def test_domains_and_classes_keep_their_number_of_clusters() -> None:
    domains = np.repeat([0, 1], [9, 6])
    targets = np.array([0] * 6 + [1] * 3 + [0] * 4 + [2] * 2)
    weights = all_weights(Resamples(targets, domains, replicates=300))
    for domain, target, count in ((0, 0, 6), (0, 1, 3), (1, 0, 4), (1, 2, 2)):
        cell = (domains == domain) & (targets == target)
        np.testing.assert_allclose(weights[:, cell].sum(axis=1), count, rtol=1e-6)


def test_a_patient_with_several_classes_is_drawn_with_the_rarest() -> None:
    """Patients a and b alone show class 1, beside class 0; every sample keeps one of them at least."""
    clusters = np.array([0, 0, 1, 1, 2, 3, 4, 5])
    targets = np.array([0, 1, 0, 1, 0, 0, 0, 0])
    weights = all_weights(Resamples(targets, np.zeros(8, np.int64), clusters, replicates=400))
    np.testing.assert_allclose(weights[:, [1, 3]].sum(axis=1), 2, rtol=1e-6)
    np.testing.assert_allclose(weights[:, 4:].sum(axis=1), 4, rtol=1e-6)
    assert set(np.unique(weights[:, :4])) == {0, 2}


def test_a_cluster_in_two_domains_counts_in_each() -> None:
    clusters, domains = np.array([5, 5, 6, 6]), np.array([0, 1, 0, 1])
    resamples = Resamples(np.zeros(4, np.int64), domains, clusters, replicates=200)
    weights = all_weights(resamples)
    assert resamples.clusters == 4
    assert (weights[:, 0] != weights[:, 1]).any()


def test_a_single_cluster_stays_as_it_is() -> None:
    targets = np.array([0, 0, 0, 1])
    assert (all_weights(Resamples(targets, np.zeros(4, np.int64), replicates=50))[:, 3] == 1).all()


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_variance_of_a_mean_is_unbiased(count: int) -> None:
    """The variance over samples is s^2 / m with s^2 over m - 1, also for two or three clusters."""
    values = np.random.default_rng(count).normal(size=count)
    zeros = np.zeros(count, np.int64)
    mean = Statistic(np.arange(count), lambda weights: weights @ values / weights.sum(axis=1))
    replicates = 40_000
    points, samples = Resamples(zeros, zeros, replicates=replicates).compute([mean])
    assert points[0] == pytest.approx(values.mean(), abs=1e-6)
    expected = values.var(ddof=1) / count
    # The variance of a sample variance is at most (kurtosis - 1) / R times its square; kurtosis is at most m here.
    assert samples[0].var() == pytest.approx(expected, rel=4 * np.sqrt(max(count, 3) / replicates))


def test_the_same_seed_gives_the_same_samples_and_blocks_make_up_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = np.random.default_rng(0).integers(0, 3, 60)
    make = lambda seed: all_weights(Resamples(targets, targets % 2, replicates=70, seed=seed))  # noqa: E731
    one, again, other = make(1), make(1), make(2)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    monkeypatch.setattr("fastccsa.evaluation.resampling._BLOCK_BYTES", 4 * 60 * 7)
    small = make(1)
    assert small.shape == one.shape
    # Every sample keeps the number of images of each domain and class, whichever block it is in.
    for target in range(3):
        cell = targets == target
        np.testing.assert_allclose(small[:, cell].sum(axis=1), cell.sum(), rtol=1e-5)
    assert len(np.unique(small, axis=0)) == len(small)


@pytest.mark.parametrize("shapes", [(3, 2, 3), (3, 3, 2), (0, 0, 0)])
def test_arrays_must_match(shapes: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="must have one value per test image"):
        Resamples(*(np.zeros(n, np.int64) for n in shapes))
