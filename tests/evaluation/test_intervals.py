"""Intervals against scipy, cases whose distribution is known, and their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fastccsa.evaluation.intervals import Interval, holm, interval
from fastccsa.evaluation.metrics import METRICS
from fastccsa.evaluation.outputs import Outputs
from fastccsa.evaluation.samples import Samples
from fastccsa.system.errors import InputError

RECALL = [METRICS["recall"]]
DENSITY = 0.0584  # of a standard normal variable at its 2.5 percentile


def model(targets, predictions, domains) -> Outputs:
    """Return outputs with these predictions."""
    n = len(targets)
    logits = np.eye(4, dtype=np.float32)[np.asarray(predictions)]
    domains = np.asarray(domains, np.int64)
    names = tuple("abc"[: domains.max() + 1])
    features = np.zeros((n, 1), np.float16)
    return Outputs(np.asarray(targets, np.int64), domains, np.arange(n), logits, features, tuple("wxyz"), names, "test")


def recall_by_hand(targets: np.ndarray, predictions: np.ndarray, domains: np.ndarray, group) -> float:
    by_domain = []
    for domain in group:
        here = domains == domain
        present = sorted(set(targets[here].tolist()))
        by_domain.append(np.mean([np.mean(predictions[here & (targets == one)] == one) for one in present]))
    return float(np.mean(by_domain))


def example() -> tuple[np.ndarray, np.ndarray, list[np.ndarray], list[tuple[int, ...]]]:
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
    return targets, domains, arms, [(0, 1), (1,), (0, 2)]


def slow_samples(count: int, difference: bool) -> np.ndarray:
    """Draw images of each cell, score each seed on them by hand, and add a draw for the seeds."""
    targets, domains, (first, second), groups = example()
    random = np.random.default_rng(9)
    cells = [np.flatnonzero((domains == d) & (targets == t)) for d in range(3) for t in range(3)]
    cells = [cell for cell in cells if len(cell)]

    def scores(images: np.ndarray) -> list[float]:
        found = []
        for seed in range(3):
            one, two = (
                recall_by_hand(targets[images], arm[seed][images], domains[images], groups[seed])
                for arm in (first, second)
            )
            found.append(one - two if difference else one)
        return found

    error = np.std(scores(np.arange(len(targets))), ddof=1) / math.sqrt(3)
    # One draw fewer than images; in a mean within a cell, their weights cancel.
    return np.array(
        [
            np.mean(scores(np.concatenate([random.choice(cell, len(cell) - 1) for cell in cells])))
            + error * random.standard_t(2)
            for _ in range(count)
        ]
    )


@pytest.mark.parametrize("difference", [False, True])
def test_it_agrees_with_a_plain_loop(difference: bool) -> None:
    targets, domains, (first, second), groups = example()
    count = 1500
    samples = slow_samples(count, difference)
    found = Samples([model(targets, each, domains) for each in (*first, *second)], RECALL).interval(
        "recall", [0, 1, 2], groups, [3, 4, 5] if difference else None
    )
    assert found is not None
    # Four standard errors of a percentile of `count` samples. Their density there is below a normal one's, whose
    # spread has the same 95 % width, by at most the factor that Student's t with 2 degrees of freedom has: 3.2.
    spread = np.diff(np.percentile(samples, [2.5, 97.5])).item() / (2 * 1.96)
    tolerance = 4 * math.sqrt(0.025 * 0.975 / count) / DENSITY * spread * 3.2
    np.testing.assert_allclose([found.low, found.high], np.percentile(samples, [2.5, 97.5]), atol=tolerance)
    by_seed = [
        [recall_by_hand(targets, arm[seed], domains, groups[seed]) for seed in range(3)] for arm in (first, second)
    ]
    expected = np.mean(by_seed[0]) - (np.mean(by_seed[1]) if difference else 0)
    assert found.estimate == pytest.approx(expected, abs=1e-6)
    assert found.seeds == 3
    assert found.covers_seeds


def test_images_alone_agree_with_scipy() -> None:
    """One model, one class: scipy's percentile bootstrap of the share of right answers."""
    right = np.random.default_rng(2).random(200) < 0.7
    zeros = np.zeros(200, np.int64)
    found = Samples([model(zeros, np.where(right, 0, 1), zeros)], RECALL).interval("recall", [0], [(0,)])
    assert found is not None
    reference = stats.bootstrap(
        (right.astype(float),), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    # Shares of 200 images are steps of 0.005; the factor sqrt(200 / 199) is far below one.
    assert [found.low, found.high] == pytest.approx([reference.low, reference.high], abs=0.0051)
    assert not found.covers_seeds


def test_seeds_alone_agree_with_scipy() -> None:
    """Images do not vary: Student's interval of the mean over the seeds."""
    points = np.array([0.5, 0.61, 0.42, 0.55, 0.58])
    found = interval(points, np.repeat(points[:, None], 10_000, axis=1))
    low, high = stats.t.interval(0.95, 4, points.mean(), stats.sem(points))
    assert [found.estimate, found.low, found.high] == pytest.approx([points.mean(), low, high], abs=1e-4)


def test_both_add_up_as_variances_do() -> None:
    """Many seeds, whose t distribution is nearly normal, and normal samples of the images."""
    random = np.random.default_rng(0)
    points = random.normal(size=60)
    images = 0.2 * stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000)
    found = interval(points, points[:, None] + images)
    width = 2 * 1.96 * math.hypot(stats.sem(points), 0.2)
    # Student's t with 59 degrees of freedom is wider by 2 %; the rest is the noise of two percentiles.
    assert found.high - found.low == pytest.approx(width, rel=0.05)


def test_a_sample_uses_one_draw_of_images_for_all_seeds() -> None:
    """If all seeds agree on every image, further seeds do not make the interval shorter."""
    zeros = np.zeros(50, np.int64)
    once = model(zeros, np.repeat([0, 1], 25), zeros)
    samples = Samples([once] * 9, RECALL)
    one, many = samples.interval("recall", [0], [(0,)]), samples.interval("recall", list(range(1, 9)), [(0,)] * 8)
    assert one is not None
    assert many is not None
    assert (many.low, many.high) == (pytest.approx(one.low, abs=1e-6), pytest.approx(one.high, abs=1e-6))


def test_all_right_against_all_wrong() -> None:
    targets, domains = np.array([0, 0, 1, 2, 2]), np.array([0, 0, 0, 1, 1])
    samples = Samples([model(targets, targets, domains)] * 4 + [model(targets, targets + 1, domains)] * 4, RECALL)
    groups, right, wrong = [(0, 1)] * 4, [0, 1, 2, 3], [4, 5, 6, 7]
    for models, minus, value in ((right, wrong, 1), (wrong, right, -1), (right, right, 0), (right, None, 1)):
        found = samples.interval("recall", models, groups, minus)
        assert found is not None
        assert [found.estimate, found.low, found.high] == pytest.approx([value] * 3, abs=1e-6)
        assert found.p is None if minus is None else found.p == (1 if value == 0 else pytest.approx(2 / 10_001))


def test_arms_that_agree_on_most_images_have_a_short_interval() -> None:
    """A paired difference is 2 of 100 images, however uncertain both recalls are."""
    zeros = np.zeros(100, np.int64)
    arms = [model(zeros, np.where(np.arange(100) < right, 0, 1), zeros) for right in (52, 50)]
    samples = Samples(arms, RECALL)
    paired, alone = samples.interval("recall", [0], [(0,)], [1]), samples.interval("recall", [0], [(0,)])
    assert paired is not None
    assert alone is not None
    assert paired.high - paired.low < 0.06 < 0.18 < alone.high - alone.low
    assert paired.low == 0
    assert paired.p is not None
    assert 0.2 < paired.p <= 0.35  # 2 P(no such image is drawn) = 2 * 0.98^99 = 0.27


def test_the_p_value_agrees_with_the_interval() -> None:
    """It is 0.05 where the interval ends at 0."""
    random = np.random.default_rng(1)
    samples = random.normal(size=(1, 10_000))
    edge = np.percentile(samples, 97.5)
    found = interval(np.array([-edge]), samples - edge, difference=True)
    assert found.high == pytest.approx(0, abs=1e-9)
    assert found.p == pytest.approx(0.05, abs=0.001)


def test_few_seeds_are_named() -> None:
    targets = np.array([0, 0, 1])
    samples = Samples([model(targets, targets, np.zeros(3))] * 3, RECALL)
    one, two, three = (samples.interval("recall", list(range(n)), [(0,)] * n) for n in (1, 2, 3))
    assert one is not None
    assert two is not None
    assert three is not None
    assert [each.covers_seeds for each in (one, two, three)] == [False, False, True]
    assert one.text() == "100.0 [100.0, 100.0] (one seed)"
    assert two.text() == "100.0 [100.0, 100.0] (two seeds)"
    assert three.text() == "100.0 [100.0, 100.0]"
    assert Interval(0.0312, -0.002, 0.0649, 5).text(signed=True) == "+3.1 [-0.2, +6.5]"


def test_two_seeds_cover_images_only() -> None:
    """Their difference does not widen the interval, which is about these two networks."""
    points = np.array([0.2, 0.8])
    found = interval(points, np.repeat(points[:, None], 100, axis=1))
    assert [found.estimate, found.low, found.high] == pytest.approx([0.5] * 3)


def test_the_same_seed_gives_the_same_interval() -> None:
    targets, domains, (first, second), groups = example()
    models = [model(targets, each, domains) for each in (*first, *second)]
    one, again, other = (
        Samples(models, RECALL, replicates=200, seed=seed).interval("recall", [0, 1, 2], groups, [3, 4, 5])
        for seed in (1, 1, 2)
    )
    assert one == again
    assert one != other


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "of_clusters", "low", "high"),
    [
        (5, 0.15, 0.0, 0.93, 0.98),  # mostly seeds
        (3, 0.15, 0.0, 0.93, 0.98),
        (5, 0.0, 0.5, 0.93, 0.97),  # mostly lesions, which are the same for all seeds
        (5, 0.0, 0.0, 0.95, 1.0),  # only the noise of single predictions, which counts twice
    ],
)
def test_coverage(seeds: int, of_seeds: float, of_clusters: float, low: float, high: float) -> None:
    """The interval of a difference contains the true one about as often as it says, with lesions of several images."""
    random = np.random.default_rng(3)
    trials, lesions, each = 250, 60, 3
    clusters = np.repeat(np.arange(lesions), each)
    n = len(clusters)
    targets, domains = np.repeat(np.arange(lesions) % 3, each), np.repeat(np.arange(lesions) % 2, each)
    covered = 0
    for trial in range(trials):
        seed = of_seeds * random.normal(size=(seeds, 1))
        lesion = of_clusters * random.choice([-1, 1], lesions)[clusters]
        arms = [random.random((seeds, n)) < 0.5 + seed + lesion, random.random((seeds, n)) < 0.5]
        models = [model(targets, np.where(right, targets, 3), domains) for arm in arms for right in arm]
        samples = Samples(models, RECALL, clusters=clusters, replicates=400, seed=trial)
        groups = [(0, 1)] * seeds
        found = samples.interval("recall", list(range(seeds)), groups, list(range(seeds, 2 * seeds)))
        assert found is not None
        covered += found.low <= 0 <= found.high
    print(f"{seeds} seeds, effects of seeds {of_seeds} and lesions {of_clusters}: {100 * covered / trials:.1f} %")
    noise = 3 * math.sqrt(0.05 * 0.95 / trials)
    assert low - noise <= covered / trials <= high + noise


def test_ignoring_lesions_makes_intervals_too_short() -> None:
    """The images of a lesion agree, so that n images say no more than their lesions."""
    random = np.random.default_rng(0)
    right = np.repeat(random.random(50) < 0.5, 4)
    zeros, clusters = np.zeros(200, np.int64), np.repeat(np.arange(50), 4)
    outputs = model(zeros, np.where(right, 0, 1), zeros)
    widths = []
    for given in (None, clusters):
        found = Samples([outputs], RECALL, clusters=given).interval("recall", [0], [(0,)])
        assert found is not None
        widths.append(found.high - found.low)
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.08)


def test_a_metric_is_averaged_over_the_domains_that_define_it() -> None:
    """Domain 2 shows one class: it has a recall and no AUROC."""
    targets, domains, (first, _), _ = example()
    metrics = [METRICS["recall"], METRICS["auroc"]]
    samples = Samples([model(targets, first[0], domains)], metrics, replicates=50)
    alone, both = (samples.interval("auroc", [0], [group]) for group in ((0,), (0, 2)))
    assert alone is not None
    assert alone == both
    assert samples.interval("auroc", [0], [(2,)]) is None
    assert samples.interval("recall", [0], [(2,)]) is not None


def test_holm() -> None:
    """The example of Wright, Adjusted p-values for simultaneous inference (Biometrics 1992), computed by hand."""
    values = [0.01, 0.04, 0.03, 0.005, 0.5]
    assert holm(values) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.5])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.interval("recall", [0, 1], [(0,)]), "1 groups of domains for 2 seeds"),
        (lambda s: s.interval("recall", [0, 1], [(0,)] * 2, [0]), "for 2 seeds and 1 others"),
        (lambda s: s.interval("recall", [], []), "give one per seed, of 1 or more"),
        (lambda s: s.interval("recall", [0, 1], [(0,), (1,)]), "domain 1 has no test image"),
        (lambda s: s.interval("recall", [0, 1], [(0,), ()]), "a group of domains is empty"),
        (lambda s: interval(np.zeros(0), np.zeros((0, 5))), "at least one seed"),
        (lambda s: Samples([], RECALL), "no model"),
        (lambda s: Samples([model([0], [0], [0]), model([1], [0], [0])], RECALL), "tested on different images"),
    ],
)
def test_bad_input(call, message: str) -> None:
    targets = np.array([0, 0, 1])
    samples = Samples([model(targets, targets, np.zeros(3))] * 2, RECALL, replicates=10)
    with pytest.raises(InputError, match=message):
        call(samples)
